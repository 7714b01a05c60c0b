"""A sink keeps exchanges. It blocks: the recorder calls it in a thread, one call at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proxy.protocol.exchange import Exchange


class Sink(Protocol):
    """Somewhere to keep exchanges."""

    def write(self, exchanges: Sequence[Exchange]) -> None:
        """Keep all of them or, when OSError is raised, none: they will be given again."""

    def sync(self) -> None:
        """What was written outlives a power cut once this returns; raises OSError."""

    def close(self) -> None:
        """Sync, and give everything back; nothing is written afterwards. Raises OSError."""
