"""A source of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from trainer.rows import Row


class Source(Protocol):
    """Where rows come from."""

    def rows(self) -> Iterator[Row]:
        """All rows, in a stable order; raises SourceError for what cannot be read."""
