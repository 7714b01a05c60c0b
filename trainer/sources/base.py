"""A source of rows, and what becomes of a row that cannot be read.

A source raises SourceError when there is nothing to read at all. A row that is broken is named,
with file and line, and left out; the run goes on, and its exit code says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import msgspec

from trainer.rows import Row

_TOLD = 5
"""Rows of each reason whose place is kept. Chosen: enough to look one up, few enough to read."""


class Source(Protocol):
    """Where rows come from. Made of its settings in the recipe, and of where to report skips."""

    def rows(self) -> Iterator[Row]:
        """All rows, in a stable order; raises SourceError for what cannot be read."""


class Skip(msgspec.Struct, frozen=True):
    """A row that could not be read."""

    place: str
    """`file:line`, or what else finds it; in a packed file the line is that of its content."""
    reason: str
    """A code, `snake_case`: skips are counted by it."""
    detail: str = ""
    """What is wrong with it, in words; never what it says."""

    def __str__(self) -> str:
        return f"{self.place}: {self.detail or self.reason.replace('_', ' ')}"


class Skips:
    """What a run did not make rows of: broken ones, the first few of each reason with their place,
    and what was left out on purpose."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Reason → rows that could not be read."""
        self.told: dict[str, list[Skip]] = {}
        """Reason → the first skips for it."""
        self.left_out: Counter[str] = Counter()
        """Reason → things that can be read but make no row: answers without a score, say."""

    def add(self, place: str, reason: str, detail: str = "") -> None:
        self.counts[reason] += 1
        told = self.told.setdefault(reason, [])
        if len(told) < _TOLD:
            told.append(Skip(place, reason, detail))

    def __len__(self) -> int:
        return self.counts.total()
