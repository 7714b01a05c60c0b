"""Answers that were judged, and the figures that they come to: shares with their intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

import msgspec

from proxy.protocol.evidence.intervals import wilson
from trainer.rows import Row
from trainer.scorers.structured import Five
from trainer.scorers.toolcall import Score

SLICES: dict[str, tuple[str, Callable[[Score], bool]]] = {
    "call exact": ("call_exact", lambda s: s.must_call),
    "call match": ("call_match", lambda s: s.must_call),
    "BFCL": ("bfcl", lambda s: True),
    "tool name": ("tool_name", lambda s: s.must_call),
    "valid JSON": ("json_valid", lambda s: True),
    "missed calls": ("missed", lambda s: s.must_call),
    "false calls": ("called", lambda s: not s.must_call),
}
"""Figure → (field of Score that counts, which scores it is counted over)."""

FIVE: dict[str, str] = {
    "exact match": "exact",
    "JSON strict": "json_strict",
    "JSON lenient": "json_lenient",
    "tool name (structured)": "tool_name",
    "tool name, normal": "tool_name_normal",
    "all arguments": "arguments_all",
    "query exact": "query_exact",
}
"""Figure of structured generation → field of Five."""

_NUMBER = re.compile(r"_\d[\d-]*$")


class Figure(msgspec.Struct, frozen=True):
    """A share: `hits` of `n`, with its 95 % Wilson interval."""

    hits: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int) -> Figure:
        if n == 0:
            return cls(0, 0, 0.0, 1.0)
        interval = wilson(hits, n)
        return cls(hits, n, interval.low, interval.high)

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else float("nan")

    def __str__(self) -> str:
        if not self.n:
            return "–"
        return f"{self.share:4.0%} [{self.low:.0%}, {self.high:.0%}] n={self.n}"


class Answered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row, its answer and what that is worth. All that the judging needs is kept."""

    row: str
    text: str
    calls: list[tuple[str, str]]
    """(tool, arguments) of each call."""
    broken: str = ""
    """What began as a call and is none; only the raw text of a model has that."""
    score: Score
    five: Five | None = None
    """Of structured generation; None where not exactly one call is right."""
    offered: int
    """Tools that the row offers."""
    seconds: float
    confidence: float | None = None
    """That the engine had in its calls, where it told."""
    model: str = ""
    """Snapshot that says it answered."""
    by: str = ""
    """The adapter, else the backend, that a proxy says it asked."""
    at: float = 0.0
    """When, in seconds since the epoch."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tool: str = ""
    """The right tool; empty where nothing must be called."""
    category: str = ""
    group: str = ""
    """Rows of one group, such as a conversation, are not independent."""


def figures(answers: Sequence[Answered]) -> dict[str, Figure]:
    """Every figure of a set of answers."""
    found = {name: _figure(answers, name) for name in SLICES}
    several = [answer for answer in answers if answer.offered > 1]
    return found | {"tool choice": _figure(several, "tool name")} | _structured(answers)


def means(answers: Sequence[Answered]) -> dict[str, float]:
    """Figures that are means of shares, and so have no count of hits; empty where none applies."""
    called = [answer.score.arguments for answer in answers if answer.score.must_call]
    queries = [answer.five.query for answer in answers if answer.five]
    found = {"arguments": called, "query preserved": queries}
    return {name: fmean(shares) for name, shares in found.items() if shares}


def by_tool(answers: Iterable[Answered]) -> dict[str, Figure]:
    """call_exact of each right tool, by name; `` is where nothing must be called."""
    return _by(answers, lambda answer: answer.tool)


def by_category(answers: Iterable[Answered]) -> dict[str, Figure]:
    """call_exact of each category of questions, by name."""
    return _by(answers, lambda answer: answer.category)


def by_answerer(answers: Iterable[Answered]) -> dict[str, Figure]:
    """Of all answers, those of each adapter or backend that answered, by name; `` is unknown."""
    counts = Counter(answer.by for answer in answers)
    return {name: Figure.of(count, counts.total()) for name, count in sorted(counts.items())}


def category(row: Row) -> str:
    """What kind of question a row asks: its source without the number."""
    return _NUMBER.sub("", row.source.partition("#")[0].removeprefix("bfcl:"))


def percentile(answers: Sequence[Answered], share: float) -> float:
    """Seconds within which this share of the answers came; 0 where there are none."""
    ordered = sorted(answer.seconds for answer in answers)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _by(answers: Iterable[Answered], key: Callable[[Answered], str]) -> dict[str, Figure]:
    grouped: dict[str, list[bool]] = {}
    for answer in answers:
        grouped.setdefault(key(answer), []).append(answer.score.call_exact)
    return {name: Figure.of(sum(hits), len(hits)) for name, hits in sorted(grouped.items())}


def _structured(answers: Sequence[Answered]) -> dict[str, Figure]:
    judged = [answer.five for answer in answers if answer.five is not None]
    if not judged:
        return {}
    return {
        name: Figure.of(sum(getattr(one, field) for one in judged), len(judged))
        for name, field in FIVE.items()
    }


def _figure(answers: Sequence[Answered], name: str) -> Figure:
    field, counted = SLICES[name]
    scores = [answer.score for answer in answers if counted(answer.score)]
    return Figure.of(sum(_holds(s, field) for s in scores), len(scores))


def _holds(score: Score, field: str) -> bool:
    return not score.called if field == "missed" else bool(getattr(score, field))
