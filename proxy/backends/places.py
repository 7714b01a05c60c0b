"""Places on replicas, handed out one by one; who comes when all are taken waits a while in line.

A place that becomes free goes to the one who has waited longest and can use it, in the same step:
nobody who comes later can take it in between, and it is lost with nobody who left meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from proxy.balance import Balancer, Full, Nobody, Outcome, Picked
from proxy.errors import BackendOverloaded, BackendUnavailable

Server = TypeVar("Server")


class Place(NamedTuple, Generic[Server]):
    """A place that is taken, until it is given back."""

    picked: Picked
    server: Server


@dataclass(slots=True)
class _Waiter(Generic[Server]):
    able: Callable[[], Mapping[str, Server]]
    tokens: int
    prefix: tuple[str, str]
    place: asyncio.Future[Place[Server]]


class Places(Generic[Server]):
    """The line in front of one engine's servers."""

    def __init__(self, name: str, balancer: Balancer, queue_s: float) -> None:
        self._name = name
        self._balancer = balancer
        self._queue_s = queue_s
        self._waiters: deque[_Waiter[Server]] = deque()
        self._changed = asyncio.Event()

    async def take(
        self, able: Callable[[], Mapping[str, Server]], tokens: int, prefix: tuple[str, str]
    ) -> Place[Server]:
        """A place on one of those that `able` names, asked anew as long as it takes.

        Raises BackendOverloaded when none becomes free in time, BackendUnavailable when none can.
        """
        place = self._chosen(able(), tokens, prefix)
        if place is not None:
            self._changed.set()
            return place
        future: asyncio.Future[Place[Server]] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(able, tokens, prefix, future)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._queue_s):
                return await future
        except TimeoutError as error:
            self._hand_on(future)
            raise BackendOverloaded(f"no place on {self._name!r} was free in time") from error
        except asyncio.CancelledError:
            self._hand_on(future)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            self._changed.set()

    def give_back(self, place: Place[Server], outcome: Outcome) -> None:
        """A use is over; whoever waits may go on."""
        self._balancer.end(place.picked, outcome)
        self.serve()

    async def spare(self, able: Callable[[], Mapping[str, Server]]) -> None:
        """Return when nobody waits and one of those that `able` names is at most half taken: the
        other half is for whoever comes."""
        while self._waiters or not self._balancer.is_spared(able()):
            self._changed.clear()
            await self._changed.wait()

    def serve(self) -> None:
        """Something has changed: hand free places to those who wait, the longest first."""
        self._changed.set()
        for waiter in list(self._waiters):
            if not waiter.place.done():
                self._serve(waiter)

    def close(self) -> None:
        """Nobody need wait any longer."""
        for waiter in self._waiters:
            waiter.place.cancel()

    def _serve(self, waiter: _Waiter[Server]) -> None:
        """Give the waiter a place, or the error that keeps it from one, if there is either."""
        try:
            place = self._chosen(waiter.able(), waiter.tokens, waiter.prefix)
        except BackendUnavailable as error:
            waiter.place.set_exception(error)
        else:
            if place is not None:
                waiter.place.set_result(place)

    def _chosen(
        self, able: Mapping[str, Server], tokens: int, prefix: tuple[str, str]
    ) -> Place[Server] | None:
        """A place that is free now; None where one may become so. Raises BackendUnavailable."""
        match self._balancer.choose(able, tokens, prefix):
            case Picked() as picked:
                return Place(picked, able[picked.id])
            case Nobody():
                raise BackendUnavailable(f"no server of {self._name!r} can answer this now")
            case Full():
                return None

    def _hand_on(self, future: asyncio.Future[Place[Server]]) -> None:
        """Who waited left just as a place was given to them."""
        if future.done() and not future.cancelled() and future.exception() is None:
            self.give_back(future.result(), "neutral")
