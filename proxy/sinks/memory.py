"""A sink for tests and trials: a list."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.protocol.exchange import Exchange


class MemorySink:
    """Keeps exchanges for as long as the process lives."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def write(self, exchanges: Sequence[Exchange]) -> None:
        self.exchanges.extend(exchanges)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass
