"""How many rows each step took in, dropped and changed, why, and a few of them to look at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from trainer.curate.privacy import redacted
from trainer.curate.words import answer
from trainer.dataset import Example, Slice, StepReport
from trainer.rows import Row

_EXAMPLES = 3
"""Of each reason. Chosen: enough to see a mistake in a filter, few enough to read."""
_SHOWN = 240
"""Characters of a question and of an answer in an example."""
_SLICES = 500
"""Tools and tenants that are told apart; those with the most rows."""


class Funnel:
    """Counts as rows pass. Steps are told in the order in which they are announced."""

    def __init__(self) -> None:
        self.read = 0
        self._steps: dict[str, _Step] = {}
        self._read: dict[str, Counter[str]] = {"tool": Counter(), "tenant": Counter()}
        self._kept: dict[str, Counter[str]] = {"tool": Counter(), "tenant": Counter()}

    def announce(self, name: str, version: int = 0, settings: Any = None) -> None:
        """There is a step of this name."""
        self._steps[name] = _Step(name, version, msgspec.Raw(msgspec.json.encode(settings or {})))

    def count(self, row: Row) -> None:
        """A row was read."""
        self.read += 1
        self._read["tool"][_tool(row)] += 1
        self._read["tenant"][row.tenant] += 1

    def keep(self, row: Row) -> None:
        """A row is on a side."""
        self._kept["tool"][_tool(row)] += 1
        self._kept["tenant"][row.tenant] += 1

    def drop(self, step: str, reason: str, times: int = 1) -> None:
        self._steps[step].dropped[reason] += times

    def show(
        self, step: str, reason: str, row: Row, after: Row | None = None, detail: str = ""
    ) -> None:
        """Keep the row as an example, as it was and, where it did not fall, as it became."""
        shown = "" if after is None else told(after)
        examples = self._steps[step].examples.setdefault(reason, [])
        examples.append(Example(row.source, told(row), shown, detail))

    def wants(self, step: str, reason: str) -> bool:
        """Whether it has too few examples of this reason yet."""
        return len(self._steps[step].examples.get(reason, ())) < _EXAMPLES

    def change(self, step: str) -> None:
        """A step changed a row."""
        self._steps[step].changed += 1

    def reports(self) -> list[StepReport]:
        """The steps, each with as many rows entering as the one before let through."""
        left, reports = self.read, []
        for step in self._steps.values():
            reports.append(step.report(left))
            left = reports[-1].left
        return reports

    def dropped(self) -> dict[str, int]:
        """Reason → rows, over all steps."""
        total: Counter[str] = Counter()
        for step in self._steps.values():
            total += step.dropped
        return dict(total)

    def slices(self, by: str) -> dict[str, Slice]:
        """By `tool` or `tenant`."""
        kept = self._kept[by]
        most = sorted(self._read[by].items(), key=lambda one: (-one[1], one[0]))[:_SLICES]
        return {name: Slice(count, kept[name]) for name, count in most}


class _Step:
    def __init__(self, name: str, version: int, settings: msgspec.Raw) -> None:
        self.name, self.version, self.settings = name, version, settings
        self.dropped: Counter[str] = Counter()
        self.changed = 0
        self.examples: dict[str, list[Example]] = {}

    def report(self, entered: int) -> StepReport:
        return StepReport(
            name=self.name,
            version=self.version,
            settings=self.settings,
            entered=entered,
            dropped=dict(sorted(self.dropped.items())),
            changed=self.changed,
            examples=self.examples,
        )


def _tool(row: Row) -> str:
    return row.calls[0].name if row.calls else "(no call)"


def told(row: Row) -> str:
    """Question and answer, cut to what is read at a glance, without what must not be kept."""
    return redacted(f"{_cut(row.question)} ⇒ {_cut(answer(row))}")


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 1] + "…"
