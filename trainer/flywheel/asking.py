"""Who is asked a run's held-out rows: candidate, champion, base, and the clouds as recorded.

All are asked the same rows, so that their answers can be paired. A report that is there already is
not made again: a run that is killed while it asks goes on with who is left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from proxy.protocol import atomic
from trainer.errors import FlywheelError
from trainer.evaluate import Asker, Report, balanced, evaluate, read
from trainer.flywheel.events import Events
from trainer.flywheel.references import Recorded
from trainer.flywheel.settings import EvaluationSettings
from trainer.in_process import of_base, of_bundle
from trainer.recipe import Recipe
from trainer.rows import Row
from trainer.served import Served
from trainer.subject import Subject

_LOOKS = 30
"""Times that a subject is asked before it is taken for one that does not answer. Chosen: half a
minute, in which a proxy finds a bundle and reads it."""

Role: TypeAlias = Literal["candidate", "champion", "general", "base", "cloud"]


class Asked(NamedTuple):
    """Who answers, and where."""

    adapters: Path
    """Directory of the bundles."""
    candidate: str
    champion: str
    """Empty for none."""
    general: str
    """Empty for none."""
    references: Path | None
    """The clouds' recorded answers; None: they are not wanted."""
    recipe: Recipe
    """Says where the base is found, and how long an answer may be."""
    settings: EvaluationSettings

    def subjects(self) -> dict[Role, Subject]:
        """Role → who has it."""
        found: dict[Role, Subject] = {"candidate": Subject(self.candidate)}
        if self.champion:
            found["champion"] = Subject(self.champion)
        if self.general:
            found["general"] = Subject(self.general)
        if self.settings.base:
            found["base"] = Subject("base")
        if self.references is not None:
            found["cloud"] = Subject("cloud", backend="the record")
        return found


async def _awaited(asker: Asker, row: Row) -> None:
    """Until the subject answers at all: a proxy looks for new bundles each second."""
    for _ in range(_LOOKS):
        if await asker.ask(row) is not None:
            return
        await asyncio.sleep(1)


class Answers:
    """The reports of one step, in its directory."""

    def __init__(self, directory: Path, asked: Asked, events: Events) -> None:
        self._directory, self._asked, self._events = directory, asked, events
        directory.mkdir(parents=True, exist_ok=True)

    def ask(self, rows: Mapping[str, Sequence[Row]], dataset: str) -> dict[Role, list[Report]]:
        """Role → its report on each side that has rows. `dataset`: its fingerprint."""
        found: dict[Role, list[Report]] = {role: [] for role in self._asked.subjects()}
        for role in found:
            for side, held_out in rows.items():
                report = self._report(role, side, held_out, dataset)
                if report is not None:
                    found[role].append(report)
        if not found["candidate"]:
            raise FlywheelError("no row is held out; raise the recipe's `split.seen`")
        return {role: reports for role, reports in found.items() if reports}

    def kept(self) -> dict[Role, list[Report]]:
        """Role → the reports that are there."""
        found: dict[Role, list[Report]] = {}
        for role, subject in self._asked.subjects().items():
            paths = sorted(self._directory.glob(f"{role}-{subject.adapter}-*.json"))
            found[role] = [read(path) for path in paths]
        return found

    def _report(self, role: Role, side: str, rows: Sequence[Row], dataset: str) -> Report | None:
        subject = self._asked.subjects()[role]
        path = self._directory / f"{role}-{subject.adapter}-{side}.json"
        if path.exists():
            return read(path)
        asker = self._asker(role, subject)
        asked = balanced(rows, self._asked.settings.most)
        if isinstance(asker, Recorded):
            asked = [row for row in asked if asker.knows(row)]
        if not asked:
            return None
        report = self._evaluated(asker, subject, side, asked, dataset)
        atomic.write(path, msgspec.json.format(msgspec.json.encode(report)))
        return report

    def _evaluated(
        self, asker: Asker, subject: Subject, side: str, rows: Sequence[Row], dataset: str
    ) -> Report:
        done = 0

        def progress() -> None:
            nonlocal done
            done += 1
            self._events.progress(f"{subject}, {side}", done, len(rows))

        async def asked() -> Report:
            await _awaited(asker, rows[0])
            return await evaluate(
                rows,
                asker=asker,
                subject=subject,
                side=side,
                concurrency=self._asked.settings.concurrency,
                dataset=dataset,
                progress=progress,
            )

        return asyncio.run(asked())

    def _asker(self, role: Role, subject: Subject) -> Asker:
        asked, settings = self._asked, self._asked.settings
        base, most = asked.recipe.base_model, asked.recipe.decoding.max_new_tokens
        if role == "cloud" and asked.references is not None:
            return Recorded(asked.references)
        if settings.base_url:
            key = os.environ.get(settings.key_env, "none")
            return Served(settings.base_url, subject, key, most)
        if role == "base":
            return of_base(asked.adapters / asked.candidate, base, most)
        return of_bundle(asked.adapters / subject.adapter, base, most)
