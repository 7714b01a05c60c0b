"""A sink for tests and trials: a list."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed


class MemorySink:
    """Keeps records for as long as the process lives."""

    is_open = False

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.feedback: list[Feedback] = []
        self.shadows: list[Shadowed] = []

    def write(self, records: Sequence[Record]) -> None:
        self.exchanges += [record for record in records if isinstance(record, Exchange)]
        self.feedback += [record for record in records if isinstance(record, Feedback)]
        self.shadows += [record for record in records if isinstance(record, Shadowed)]

    def sync(self) -> None:
        pass

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        pass
