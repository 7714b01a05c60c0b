"""Getting a backend ready for other adapters while it serves.

vLLM, SGLang   on each server: load · canary
TGI            on each server: drain · restart with both lists · canary
embedded       load · canary
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from proxy.errors import CannotStart
from proxy.protocol.adapter import Adapter
from proxy.restart import Restarter, RestartFailed, lora_adapters

if TYPE_CHECKING:
    from proxy.backends.replicas import Replicas, Server


class RolloutFailed(Exception):
    """It will not succeed until champions.json is written again; the message says why."""


class RolloutWaits(Exception):
    """It is tried again by itself; the message says what it waits for."""


class Prepares(Protocol):
    """A backend that can be made ready for other adapters while it serves."""

    def has(self, adapters: Sequence[Adapter]) -> bool:
        """Whether it could answer as each of them now."""

    async def prepare(self, adapters: Sequence[Adapter], kept: Sequence[Adapter] = ()) -> None:
        """Return once the backend answers as each of `adapters`; former ones go on answering.

        Those to be `kept` are loaded beside them, and not waited for. Raises RolloutFailed or
        RolloutWaits.
        """

    async def add(self, adapters: Sequence[Adapter]) -> None:
        """The same, beside those that it answers as now."""


class Loads(Protocol):
    """An engine that loads adapters while it serves."""

    async def prepare(self, adapters: Sequence[Adapter]) -> None:
        """Return once each has passed its canary; raises CannotStart."""


class LocalRollout:
    """Gets the engine of this machine ready."""

    def __init__(self, backend: Loads, serving: Sequence[Adapter] = ()) -> None:
        """`serving`: those that it has passed the canaries of already."""
        self._backend = backend
        self._proven = {_content(adapter) for adapter in serving}

    def has(self, adapters: Sequence[Adapter]) -> bool:
        """See Prepares."""
        return all(_content(adapter) in self._proven for adapter in adapters)

    async def prepare(self, adapters: Sequence[Adapter], kept: Sequence[Adapter] = ()) -> None:
        """See Prepares. What is kept is a matter of the engine's memory."""
        fresh = [adapter for adapter in adapters if not self.has([adapter])]
        try:
            await self._backend.prepare(fresh)
        except CannotStart as error:
            raise RolloutFailed(str(error)) from error
        self._proven |= {_content(adapter) for adapter in fresh}

    async def add(self, adapters: Sequence[Adapter]) -> None:
        """See Prepares."""
        await self.prepare(adapters)


def _content(adapter: Adapter) -> tuple[str, str]:
    """The same for the same weights of the same name."""
    return adapter.id, adapter.manifest.weights_sha256


class PoolRollout:
    """Gets the servers of an engine ready, one after the other."""

    def __init__(
        self,
        pool: Replicas,
        restarter: Restarter | None,
        serving: Sequence[Adapter],
        there: str | None = None,
    ) -> None:
        """`serving` are the champions of now; `there` is their directory as the servers see it."""
        self._pool = pool
        self._restarter = restarter
        self._serving = list(serving)
        self._kept: list[Adapter] = []
        self._there = there

    def has(self, adapters: Sequence[Adapter]) -> bool:
        """See Prepares."""
        well = [server for server in self._pool.servers if server.is_healthy]
        return bool(well) and not any(_lacking(server, adapters) for server in well)

    async def prepare(self, adapters: Sequence[Adapter], kept: Sequence[Adapter] = ()) -> None:
        """See Prepares. A server that is down is passed over: it proves them when it is back."""
        self._kept = list(kept)
        await self._prepare(adapters)

    async def _prepare(self, adapters: Sequence[Adapter]) -> None:
        self._pool.want([*self._serving, *adapters, *self._kept])
        for server in self._pool.servers:
            await self._pool.check(server)
            if server.is_healthy and _lacking(server, adapters):
                await self._renew(server, adapters)
        if not self.has(adapters):
            raise RolloutWaits(f"the servers of {self._pool.name!r} are not well yet")
        self._serving = list(adapters)

    async def add(self, adapters: Sequence[Adapter]) -> None:
        """See Prepares."""
        await self._prepare([*self._serving, *adapters])

    async def _renew(self, server: Server, adapters: Sequence[Adapter]) -> None:
        """Give a server what it lacks, or say why it does not get it."""
        names = self._names()
        if self._pool.loads_at_run_time:
            # Loading has been tried, and is again: it costs nobody anything.
            raise RolloutWaits(_refusal(server, adapters))
        if self._restarter is None:
            raise RolloutWaits(f"restart {server.name} with LORA_ADAPTERS={names}")
        self._check_others(server)
        try:
            async with self._pool.drained(server):
                await self._restarter.restart(server.replica, names)
                server.forget()
                await self._pool.check(server)
                await self._proven(server, adapters)
        except RestartFailed as error:
            raise RolloutFailed(f"{server.name} was not restarted: {error}") from error
        except TimeoutError as error:
            raise RolloutWaits(f"the requests on {server.name} did not end in time") from error

    async def _proven(self, server: Server, adapters: Sequence[Adapter]) -> None:
        """Wait until a restarted server is well, and see that it has proven these adapters."""
        start_s = self._pool.settings.start_s
        try:
            async with asyncio.timeout(start_s):
                while not server.is_healthy and server in self._pool.servers:
                    await asyncio.sleep(self._pool.settings.check_s)
                    await self._pool.check(server)
        except TimeoutError as error:
            why = f"was not well within {start_s:g} s of its restart"
            raise RolloutFailed(f"{server.name} {why}") from error
        if server not in self._pool.servers:
            why = "has another address since its restart; give each server a name of its own"
            raise RolloutFailed(f"{server.name} {why}")
        if _lacking(server, adapters):
            raise RolloutFailed(_refusal(server, adapters))

    def _check_others(self, server: Server) -> None:
        """What a server answers for, another must be able to; a single one has to go anyway."""
        others = [other for other in self._pool.servers if other is not server]
        served = server.proven & {adapter.id for adapter in self._serving}
        if others and not served <= {id for other in others for id in other.proven}:
            raise RolloutWaits(f"no other server could take over from {server.name}")

    def _names(self) -> str:
        try:
            return lora_adapters(self._pool.wanted, self._there)
        except RestartFailed as error:
            raise RolloutFailed(str(error)) from error


def _lacking(server: Server, adapters: Sequence[Adapter]) -> list[str]:
    return [adapter.id for adapter in adapters if adapter.id not in server.proven]


def _refusal(server: Server, adapters: Sequence[Adapter]) -> str:
    whys = {id: server.refused.get(id, "not proven") for id in _lacking(server, adapters)}
    return "; ".join(f"{server.name} does not serve {id}: {why}" for id, why in whys.items())
