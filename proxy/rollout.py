"""A new champion is prepared on its backend first, then put in its place; no request notices.

    champions.json changed ──▶ read the bundles ──▶ prepare ──▶ flip
                                    │ broken          │ failed
                                    ▼                 ▼
                               the old champion stays, and the log and /ready say why

    prepare   vLLM, SGLang   on each server: load · canary
              TGI            on each server: drain · restart with both lists · canary
              embedded       load · canary

A canary (routes.yaml) is prepared in the same way, after the champions; until it has passed, and
when it does not, the champion answers all, and log and /ready say why.

Requests under way end with the adapter that they began with: the former champions stay loaded until
the next roll-out, which also makes going back to them a matter of one flip.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import structlog

from proxy.backends.replicas import Replicas, Server
from proxy.catalog import BadAdapter, Catalog, Champions, Proven
from proxy.errors import CannotStart
from proxy.protocol.adapter import MANIFEST, Adapter
from proxy.protocol.champions import CHAMPIONS
from proxy.restart import Restarter, RestartFailed, lora_adapters

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
"""Seconds between two looks at a champion file. Chosen: one `stat`; promotion is not urgent."""
_RETRY_S = 5.0
"""Seconds until what a roll-out waits for is looked at again. Chosen: one health check."""

Stamp: TypeAlias = tuple[int, int, int]
"""Time of change, number and size of a file: two of a kind are the same content."""


class RolloutFailed(Exception):
    """It will not succeed until champions.json is written again; the message says why."""


class RolloutWaits(Exception):
    """It is tried again by itself; the message says what it waits for."""


class Prepares(Protocol):
    """A backend that can be made ready for other adapters while it serves."""

    async def prepare(self, adapters: Sequence[Adapter]) -> None:
        """Return once the backend answers as each of them; former ones go on answering.

        Raises RolloutFailed or RolloutWaits.
        """

    async def add(self, adapters: Sequence[Adapter]) -> None:
        """The same, beside those that it answers as now."""


class Loads(Protocol):
    """An engine that loads adapters while it serves."""

    async def prepare(self, adapters: Sequence[Adapter]) -> None:
        """Return once each has passed its canary; raises CannotStart."""


class Source(NamedTuple):
    """Where a backend's champions come from, and who gets them ready."""

    directory: Path
    read: Callable[[], Champions]
    """Reads and checks the bundles; blocks. Raises BadAdapter."""
    backend: Prepares
    stamp: Stamp | None = None
    """The champion file's when it was read for the start; None where what it names may have to be
    rolled out still: servers elsewhere may have been started with other adapters."""


class Rollouts:
    """Follows the champion files; one task for each backend that has adapters."""

    def __init__(
        self,
        catalog: Catalog,
        sources: Mapping[str, Source],
        canaries: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """`canaries`: backend → domain → id of the adapter."""
        self._catalog = catalog
        self._sources = sources
        self._canaries = canaries or {}
        self._settled: dict[str, Stamp | None] = {}
        """Domain → its canary's manifest, as it was when the canary passed or failed."""
        self._warned: set[tuple[str, str]] = set()
        """What the log has of each domain: reasons come and go while an engine is looked at."""
        self.is_over: Callable[[], bool] = lambda: False
        """Whether what comes now is another's: this proxy is on its way out."""
        self.told: dict[str, str] = {}
        """Backend → why its roll-out is not done yet, for /ready."""

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, source in self._sources.items():
                tasks.create_task(self._follow(name, source), name=f"champions of {name}")

    async def _follow(self, name: str, source: Source) -> None:
        seen = source.stamp
        while not self.is_over():
            await self._look_at_canaries(name, source)
            await asyncio.sleep(_LOOK_S)
            found = await asyncio.to_thread(stamp, source.directory)
            # A file that is gone is no decision: the champions stay.
            if found is not None and found != seen:
                seen = found
                await self._roll(name, source, found)

    async def _roll(self, name: str, source: Source, seen: Stamp) -> None:
        """From what the file says now to a flip, or to the reason why there is none."""
        try:
            champions = await asyncio.to_thread(source.read)
            ids = [adapter.id for adapter in champions.adapters]
            log.info("rollout_began", backend=name, adapters=ids)
            while not await self._prepared(name, source, champions):
                await asyncio.sleep(_RETRY_S)
                if await asyncio.to_thread(stamp, source.directory) != seen:
                    return
        except (BadAdapter, RolloutFailed) as error:
            self.told[name] = str(error)
            log.error("rollout_failed", backend=name, reason=str(error))
            return
        self._catalog.flip(name, champions)
        self.told.pop(name, None)
        for domain in self._canaries.get(name, ()):
            # The champion may be another one now; the canary is prepared beside the new ones.
            self._settled.pop(domain, None)
        log.info("rollout_done", backend=name, adapters=ids)

    async def _prepared(self, name: str, source: Source, champions: Champions) -> bool:
        try:
            await source.backend.prepare(champions.adapters)
        except RolloutWaits as wait:
            if self.told.get(name) != str(wait):
                log.warning("rollout_waits", backend=name, reason=str(wait))
            self.told[name] = str(wait)
            return False
        return True

    # ------------------------------------------------------------ canaries

    async def _look_at_canaries(self, name: str, source: Source) -> None:
        for domain, id in self._canaries.get(name, {}).items():
            seen = await asyncio.to_thread(stamp, source.directory / id, MANIFEST)
            if domain in self._settled and self._settled[domain] == seen:
                continue
            try:
                adapter = await self._passed(name, source, domain, id)
            except RolloutWaits as wait:
                self._keep_from(domain, id, str(wait))
            except (BadAdapter, RolloutFailed) as error:
                self._settled[domain] = seen
                self._keep_from(domain, id, str(error))
            else:
                self._settled[domain] = seen
                self._catalog.admit_canary(domain, Proven(name, adapter))
                self.told.pop(_about(domain), None)
                self._warned = {one for one in self._warned if one[0] != domain}
                log.info("canary_admitted", domain=domain, backend=name, adapter=id)

    async def _passed(self, name: str, source: Source, domain: str, id: str) -> Adapter:
        """The adapter, once its backend can answer as it; raises what keeps it from that."""
        champions = self._catalog.champions(name)
        if id not in champions.by_id:
            champions = await asyncio.to_thread(source.read)
        if id not in champions.by_id:
            raise RolloutFailed(f"there is no sound bundle {id!r} in {source.directory}")
        champion = self._catalog.champion(name, domain)
        if champion is not None and champion.id == id:
            raise RolloutFailed("it is the champion; take `canary` out of routes.yaml")
        await source.backend.add([champions.by_id[id]])
        return champions.by_id[id]

    def _keep_from(self, domain: str, id: str, reason: str) -> None:
        """The champion answers all; say so, each reason once."""
        self._catalog.withdraw_canary(domain)
        if (domain, reason) not in self._warned:
            self._warned.add((domain, reason))
            log.warning("canary_not_used", domain=domain, adapter=id, reason=reason)
        self.told[_about(domain)] = reason


def _about(domain: str) -> str:
    return f"canary of {domain}"


def stamp(directory: Path, name: str = CHAMPIONS) -> Stamp | None:
    """What a file of a directory, else its champion file, looks like from outside; None when it is
    not there."""
    try:
        found = os.stat(directory / name)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class LocalRollout:
    """Gets the engine of this machine ready."""

    def __init__(self, backend: Loads) -> None:
        self._backend = backend

    async def prepare(self, adapters: Sequence[Adapter]) -> None:
        """See Prepares."""
        try:
            await self._backend.prepare(adapters)
        except CannotStart as error:
            raise RolloutFailed(str(error)) from error

    async def add(self, adapters: Sequence[Adapter]) -> None:
        """See Prepares."""
        await self.prepare(adapters)


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
        self._there = there

    async def prepare(self, adapters: Sequence[Adapter]) -> None:
        """See Prepares. A server that is down is passed over: it proves them when it is back."""
        self._pool.want([*self._serving, *adapters])
        for server in self._pool.servers:
            await self._pool.check(server)
            if server.is_healthy and _lacking(server, adapters):
                await self._renew(server, adapters)
        well = [server for server in self._pool.servers if server.is_healthy]
        if not well or any(_lacking(server, adapters) for server in well):
            raise RolloutWaits(f"the servers of {self._pool.name!r} are not well yet")
        self._serving = list(adapters)

    async def add(self, adapters: Sequence[Adapter]) -> None:
        """See Prepares."""
        await self.prepare([*self._serving, *adapters])

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
