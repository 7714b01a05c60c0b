"""A run's directory, and the manifest that says how far it is.

    runs/<domain>/<run>/
    ├── manifest.json   Manifest, below; replaced in one step whenever something has become true
    ├── log.jsonl       what happened, one event a line
    ├── rows/           what was recorded up to the run's begin, and the clouds' answers to it
    ├── dataset/        as `dataset build` writes it
    ├── preflight/      the checks
    ├── training/       metrics, checkpoint, weights
    ├── candidate/      the bundle, under the id that was reserved when the run began
    ├── evaluation/     one report for each subject and side
    ├── verdict/        of the gate
    ├── sealed/         reports of the sealed side, where it was opened
    └── report/         the page, and its twin for machines

Each step writes a directory of its own from those before it, and counts as done when the manifest
says so: a run that is killed is taken up at the step that it was in.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec
from msgspec.structs import replace

from proxy.protocol import atomic
from trainer.errors import FlywheelError, cause_of
from trainer.gate import Decision
from trainer.recipe import Recipe

MANIFEST, LOG = "manifest.json", "log.jsonl"

StepName: TypeAlias = Literal[
    "rows",
    "dataset",
    "preflight",
    "train",
    "register",
    "evaluate",
    "gate",
    "sealed",
    "report",
    "promote",
]
STEPS: tuple[StepName, ...] = get_args(StepName)
State: TypeAlias = Literal["waiting", "running", "done", "skipped", "failed"]
Figures: TypeAlias = Mapping[str, int | float | str]
Outcome: TypeAlias = Decision | Literal["", "promoted", "rolled back", "failed"]


PLACES: dict[StepName, tuple[str, ...]] = {
    "rows": ("rows",),
    "dataset": ("dataset",),
    "preflight": ("preflight",),
    "train": ("training", "candidate"),
    "evaluate": ("evaluation",),
    "gate": ("verdict",),
    "sealed": ("sealed",),
    "report": ("report",),
}
"""Step → the directories that it makes in the run's."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a run."""

    name: StepName
    state: State = "waiting"
    started_at: float | None = None
    """Seconds since the epoch; of the last try."""
    finished_at: float | None = None
    tries: int = 0
    reason: str = ""
    """Why it failed or was skipped, or what it waits for."""
    figures: dict[str, int | float | str] = {}
    """What came of it, in a few numbers."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is, and how far it is."""

    layout: int = 1
    id: str
    """Sorts by time; its directory's name."""
    domain: str
    state: Literal["running", "finished"] = "running"
    """`running` says that it is not over: whether a process works on it, the domain's lock says."""
    outcome: Outcome = ""
    """The verdict, and what promotion made of it; `failed`: an error ended it."""
    reason: str = ""
    """The outcome in words."""
    cause: str
    """Why it was begun: `manual`, or the trigger's sentence."""
    adapter: str
    """Id that the bundle gets, reserved when the run began."""
    created_at: str
    """Of the bundle: when the run began, ISO 8601."""
    champion: str = ""
    """Adapter that served the domain when the run began; empty for none."""
    general: str = ""
    """General adapter that is an option besides; empty for none."""
    former: str = ""
    """The run before it, whose rows are not new; empty for none."""
    until: float
    """Seconds since the epoch: what was said later belongs to the next run."""
    new_rows: int
    """Clean rows that were in no run yet."""
    recipe: Recipe
    """As it was when the run began."""
    finished_at: float | None = None
    steps: tuple[Step, ...] = tuple(Step(name=name) for name in STEPS)

    @property
    def started_at(self) -> float:
        return self.until

    @property
    def is_waiting(self) -> bool:
        """Whether its candidate is on its way to clients, and time or traffic has to pass."""
        last = self.step("promote")
        return self.state == "running" and last.state == "waiting" and last.tries > 0

    def step(self, name: StepName) -> Step:
        return next(step for step in self.steps if step.name == name)

    def figures(self) -> dict[str, int | float | str]:
        """Of all steps: `dataset.train` → 1200."""
        return {
            f"{step.name}.{name}": value
            for step in self.steps
            for name, value in step.figures.items()
        }


class Run:
    """A run's directory, open for work."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def begin(cls, runs: Path, manifest: Manifest) -> Run:
        """Make the directory; the run is there once its manifest is."""
        directory = runs / manifest.id
        directory.mkdir(parents=True)
        run = cls(directory, manifest)
        run.save()
        return run

    def save(self) -> None:
        encoded = msgspec.json.format(msgspec.json.encode(self.manifest), indent=2)
        atomic.write(self.directory / MANIFEST, encoded + b"\n")

    def started(self, name: StepName) -> None:
        tries = self.manifest.step(name).tries + 1
        self._put(Step(name=name, state="running", started_at=time.time(), tries=tries))

    def ended(
        self, name: StepName, state: State, reason: str = "", figures: Figures | None = None
    ) -> None:
        step = self.manifest.step(name)
        self._put(
            replace(
                step,
                state=state,
                finished_at=time.time(),
                reason=reason,
                figures=dict(figures or {}),
            )
        )

    def forget(self, name: StepName, champion: str) -> None:
        """Let this step and those after it be done anew, beside today's champion."""
        kept = STEPS.index(name)
        steps = tuple(
            step if number < kept else Step(name=step.name)
            for number, step in enumerate(self.manifest.steps)
        )
        begun = replace(self.manifest, steps=steps, state="running", outcome="", reason="")
        self._become(replace(begun, champion=champion, finished_at=None))
        for forgotten in STEPS[kept:]:
            for place in PLACES.get(forgotten, ()):
                shutil.rmtree(self.directory / place, ignore_errors=True)

    def finish(self, outcome: Outcome, reason: str) -> None:
        now = time.time()
        finished = replace(self.manifest, state="finished", outcome=outcome, reason=reason)
        self._become(replace(finished, finished_at=now))

    def _put(self, step: Step) -> None:
        steps = tuple(step if one.name == step.name else one for one in self.manifest.steps)
        self._become(replace(self.manifest, steps=steps))

    def _become(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.save()


def read(directory: Path) -> Run:
    """The run in a directory; raises FlywheelError for what is none."""
    path = directory / MANIFEST
    try:
        return Run(directory, msgspec.json.decode(path.read_bytes(), type=Manifest))
    except (OSError, ValueError) as error:
        raise FlywheelError(
            f"{path}: {cause_of(error)}; is it a run of `headrace-trainer run`?"
        ) from error


def runs(directory: Path) -> Iterator[Run]:
    """A domain's runs, oldest first. A directory without manifest is none: nothing was begun."""
    for path in sorted(directory.glob(f"*/{MANIFEST}")):
        yield read(path.parent)
