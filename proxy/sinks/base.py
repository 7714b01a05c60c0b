"""A sink keeps records. It blocks: the recorder calls it in a thread, one call at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proxy.protocol.segments import Record


class Sink(Protocol):
    """Somewhere to keep records."""

    @property
    def is_open(self) -> bool:
        """Whether `tidy` may have something to do."""

    def write(self, records: Sequence[Record]) -> None:
        """Keep all of them or, when OSError is raised, none: they will be given again."""

    def sync(self) -> None:
        """What was written outlives a power cut once this returns; raises OSError."""

    def tidy(self) -> None:
        """Called now and then: close what has been open for long enough. Raises OSError."""

    def close(self) -> None:
        """Sync, and give everything back; nothing is written afterwards. Raises OSError."""
