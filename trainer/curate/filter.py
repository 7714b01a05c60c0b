"""A filter: a named, versioned, pure function of a row, which is kept, changed or dropped.

A filter's version goes into the manifest of each dataset that it made: raise it when the same row
with the same settings may now fare otherwise.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

from trainer.rows import Row


class Drop(NamedTuple):
    """Why a row is left out."""

    reason: str
    """A code, `snake_case`: drops are counted by it."""
    detail: str = ""
    """What is wrong, in words: which tool, which package. Never what the row says."""


class Filter(Protocol):
    """Made of its settings and the recipe; the same row always fares the same."""

    version: ClassVar[int]

    def __call__(self, row: Row) -> Row | Drop:
        """The row, as it is or put right; or why it is dropped."""
