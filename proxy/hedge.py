"""A race of two answers: where the first is slow to begin, a second is started; one is given.

What is slow is told by the domain's own last answers. Each contestant runs in a task of its own,
because what it waits for may be bound to the task in which it began.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Generic, TypeVar

from proxy.domains import Hedge
from proxy.errors import BackendError

_REMEMBERED = 200
_AHEAD = 16
_ENOUGH = 20
"""Answers without which a 95th percentile says nothing."""

T = TypeVar("T")


class Hedges:
    """When to start a second answer, and whether that may still be done."""

    def __init__(self) -> None:
        self._firsts: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._asked: dict[str, int] = defaultdict(int)
        self._hedged: dict[str, int] = defaultdict(int)

    def began(self, domain: str, seconds: float) -> None:
        """A first backend had something to send after so many seconds."""
        self._firsts[domain].append(seconds)

    def patience(self, domain: str, hedge: Hedge) -> float | None:
        """Seconds to wait for a first answer before a second is started; None: for ever."""
        self._asked[domain] += 1
        if self._hedged[domain] + 1 > hedge.share * self._asked[domain]:
            return None
        if hedge.after_s is not None:
            return hedge.after_s
        firsts = sorted(self._firsts[domain])
        return firsts[int(0.95 * len(firsts))] if len(firsts) >= _ENOUGH else None

    def hedged(self, domain: str) -> None:
        """A second answer has been started."""
        self._hedged[domain] += 1


async def race(
    first: AsyncGenerator[T, None],
    second: Callable[[], AsyncGenerator[T, None]],
    after_s: float,
    decided: Callable[[int], None],
) -> AsyncGenerator[T, None]:
    """The items of the contestant that has one first; the other is closed.

    `second` is called after so many seconds without an item, and not at all when the first has
    ended by then; `decided` is told who wins, 0 or 1, before the loser is closed. Raises the
    BackendError of the last contestant that failed.
    """
    runners = [_Runner(first)]
    try:
        if not await runners[0].has_begun(after_s):
            runners.append(_Runner(second()))
        winner = await _winner(runners)
        decided(runners.index(winner))
        for loser in runners:
            if loser is not winner:
                await loser.stop()
        async for item in winner.items():
            yield item
    finally:
        for runner in runners:
            await runner.stop()


class _Runner(Generic[T]):
    """A generator that runs in a task of its own, a few items ahead."""

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        self._generator = items
        self._ready: asyncio.Queue[T] = asyncio.Queue(_AHEAD)
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="hedge")
        self._task.add_done_callback(lambda _: self._begun.set())

    async def has_begun(self, within_s: float | None = None) -> bool:
        """Wait for a first item, or for the end; False when neither comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._begun.wait()
        return self._begun.is_set()

    @property
    def has_failed(self) -> bool:
        """Whether it has ended, by a backend's fault, before any item."""
        if not self._task.done() or not self._ready.empty() or self._task.cancelled():
            return False
        return isinstance(self._task.exception(), BackendError)

    async def items(self) -> AsyncGenerator[T, None]:
        """All items; raises what the generator raised."""
        while not (self._task.done() and self._ready.empty()):
            getting = asyncio.create_task(self._ready.get())
            await asyncio.wait({getting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
            getting.cancel()
        await self._task

    async def stop(self) -> None:
        """Close the generator, wherever it is."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with aclosing(self._generator):
            async for item in self._generator:
                await self._ready.put(item)
                self._begun.set()


async def _winner(runners: list[_Runner[T]]) -> _Runner[T]:
    """The first that has an item; with none, the last one, whose failure is then raised."""
    waiting = {asyncio.create_task(runner.has_begun()): runner for runner in runners}
    try:
        last = runners[0]
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                last = waiting.pop(task)
                if not last.has_failed:
                    return last
        return last
    finally:
        for task in waiting:
            task.cancel()
