"""The trainer's runs: what each directory `<domain>/<run>` says of itself. Call it in a thread.

The trainer writes `manifest.json` (what the run is, and how far) and `verdict/verdict.json` (the
gate's rules); the proxy knows of these files no more than is shown here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

MANIFEST = "manifest.json"
VERDICT = "verdict/verdict.json"
SHOWN = 100
"""Runs that are shown: the last ones of all domains."""
_LARGEST = 4 * 1024 * 1024
"""Bytes of a file that is read."""

_Kind = TypeVar("_Kind")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a run."""

    name: str
    state: str = "waiting"
    started_at: float | None = None
    """Seconds since the epoch."""
    finished_at: float | None = None
    reason: str = ""
    figures: dict[str, int | float | str] = {}

    @property
    def took_s(self) -> float | None:
        """Seconds; None while it is not over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as its manifest has it."""

    id: str
    domain: str
    state: str = ""
    outcome: str = ""
    reason: str = ""
    cause: str = ""
    adapter: str = ""
    champion: str = ""
    """That it was held against."""
    new_rows: int = 0
    created_at: str = ""
    finished_at: float | None = None
    steps: list[Step] = []

    @property
    def now(self) -> str:
        """The step that it is in, or where it failed; empty where it is over."""
        return next((one.name for one in self.steps if one.state in ("running", "failed")), "")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule of the gate found."""

    name: str
    state: str = ""
    sentence: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate decided."""

    decision: str
    sentence: str = ""
    power: str = ""
    rules: list[Rule] = []


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a directory, newest first."""

    runs: list[Run]
    unread: list[str]
    """Manifests that are none."""


def read(directory: Path) -> Found:
    """The last runs of all domains."""
    runs: list[Run] = []
    unread: list[str] = []
    # Ids sort by time, whatever the domain.
    paths = sorted(directory.glob(f"*/*/{MANIFEST}"), key=lambda path: path.parent.name)
    for path in reversed(paths[-SHOWN:]):
        found = _decoded(path, Run)
        if found is None:
            unread.append(str(path.relative_to(directory)))
        else:
            runs.append(found)
    return Found(runs=runs, unread=unread)


def one(directory: Path, domain: str, id: str) -> tuple[Run, Verdict | None] | None:
    """A run with its verdict, which comes late; None where there is no such run."""
    for path in _named(directory, domain, id):
        run = _decoded(path / MANIFEST, Run)
        return None if run is None else (run, _decoded(path / VERDICT, Verdict))
    return None


def _named(directory: Path, domain: str, id: str) -> Iterator[Path]:
    """The directory of a run; found among those that are there, as the names come from outside."""
    if not directory.is_dir():
        return
    for of_domain in directory.iterdir():
        if of_domain.name == domain and of_domain.is_dir():
            yield from (path for path in of_domain.iterdir() if path.name == id)


def _decoded(path: Path, kind: type[_Kind]) -> _Kind | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_LARGEST), type=kind)
    except (OSError, ValueError, RecursionError):
        return None
