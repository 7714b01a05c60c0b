"""The servers of one engine: each watched, its adapters proven, its places handed out.

    resolve ──▶ watch: healthy? ──no──▶ nothing is proven any more
                          │yes
                 has the adapters? ──load (vLLM)──▶ canary ──▶ proven there, or refused there
                                                                  │
    lease ──▶ balance: which of the servers that have proven this adapter ──▶ a place, or a wait

A server that went away and came back is another server: TGI would answer for an adapter that it
was not started with, with the base model, and say nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType

import msgspec
import structlog

from proxy.backends import canary
from proxy.backends.addresses import Addresses, Found
from proxy.backends.canary import Decode
from proxy.backends.dialect import Dialect
from proxy.backends.engine import Replica
from proxy.backends.http import Session
from proxy.backends.places import Place, Places
from proxy.backends.pool_settings import PoolSettings
from proxy.balance import Balancer, Outcome, State
from proxy.errors import (
    AdapterMissing,
    BackendTimeout,
    BackendUnavailable,
    ProxyError,
)
from proxy.protocol.adapter import Adapter

log = structlog.get_logger(__name__)

_PAUSE = 0.1
"""Seconds between two checks at least, however many requests fail. Chosen."""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What /ready says of a server."""

    name: str
    state: State
    in_flight: int
    adapters: list[str]
    """Those that it has proven."""
    refused: dict[str, str]
    """Those that it may not answer for, each with the reason."""


@dataclass(eq=False)
class Server:
    """A replica, and what is known of it."""

    replica: Replica
    address: str
    is_healthy: bool = False
    proven: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    tried_at: dict[str, float] = field(default_factory=dict)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is checked, so that nothing is loaded or proven twice at once."""
    suspect: asyncio.Event = field(default_factory=asyncio.Event)
    """A request failed there: check now rather than later."""
    checked: asyncio.Event = field(default_factory=asyncio.Event)
    """It has been checked at least once."""
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """A request there has ended."""

    @property
    def name(self) -> str:
        return self.replica.name

    def forget(self) -> None:
        """Nothing that was seen of it holds any longer: it has been, or will be, restarted."""
        self.proven.clear()
        self.refused.clear()
        self.tried_at.clear()


class _Lease(AbstractAsyncContextManager[Replica]):
    """A place on a server; how it is left says how the server did."""

    def __init__(
        self,
        places: Places[Server],
        able: Callable[[], Mapping[str, Server]],
        tokens: int,
        prefix: tuple[str, str],
    ) -> None:
        self._places = places
        self._wanted = (able, tokens, prefix)
        self._place: Place[Server]

    async def __aenter__(self) -> Replica:
        self._place = await self._places.take(*self._wanted)
        return self._place.server.replica

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server = self._place.server
        outcome: Outcome = "served" if error is None else "neutral"
        match error:
            case BackendUnavailable() | BackendTimeout():
                outcome = "failed"
                server.suspect.set()
            case AdapterMissing():
                server.forget()
                server.suspect.set()
        self._places.give_back(self._place, outcome)
        server.freed.set()


class Replicas:
    """The pool of one engine's servers."""

    def __init__(
        self,
        name: str,
        settings: PoolSettings,
        *,
        max_in_flight: int,
        addresses: Addresses,
        dialect: Dialect,
        session: Session,
        decode: Decode,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks nobody before `run`; the session stays its owner's."""
        self.name = name
        self.settings = settings
        self.loads_at_run_time = dialect.loads_at_run_time
        self._addresses = addresses
        self._dialect = dialect
        self._session = session
        self._decode = decode
        self._clock = clock
        self._balancer = Balancer(settings.balance, max_in_flight, clock)
        self._places: Places[Server] = Places(name, self._balancer, settings.queue_s)
        self._servers: dict[str, Server] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wanted: dict[str, Adapter] = {}
        self._retired: set[str] = set()
        self._found = asyncio.Event()

    # ------------------------------------------------------------ what is wanted

    def want(self, adapters: Iterable[Adapter]) -> None:
        """These adapters are to be proven on each server; others that we loaded are unloaded."""
        wanted = {adapter.id: adapter for adapter in adapters}
        self._retired = (self._retired | self._wanted.keys()) - wanted.keys()
        self._wanted = wanted
        for server in self._servers.values():
            server.proven &= wanted.keys()
            server.refused = {id: why for id, why in server.refused.items() if id in wanted}
            server.suspect.set()

    @property
    def wanted(self) -> list[Adapter]:
        return list(self._wanted.values())

    @property
    def servers(self) -> list[Server]:
        return list(self._servers.values())

    def status(self) -> list[ReplicaStatus]:
        """Each server as /ready tells of it."""
        return [
            ReplicaStatus(
                name=server.name,
                state=self._balancer.state(url),
                in_flight=self._balancer.in_flight(url),
                adapters=sorted(server.proven),
                refused=server.refused,
            )
            for url, server in self._servers.items()
        ]

    # ------------------------------------------------------------ a place

    def lease(
        self, *, adapter: str | None, prefix: str, tokens: int
    ) -> AbstractAsyncContextManager[Replica]:
        prefixed = (adapter or "", prefix)
        return _Lease(self._places, lambda: self._able(adapter), tokens, prefixed)

    async def spare(self, adapter: str | None) -> None:
        await self._places.spare(lambda: self._able(adapter))

    async def ready(self) -> bool:
        return any(status.state in ("up", "slow", "half_open") for status in self.status())

    async def aclose(self) -> None:
        self._places.close()

    def _able(self, adapter: str | None) -> dict[str, Server]:
        return {
            url: server
            for url, server in self._servers.items()
            if server.is_healthy and (adapter is None or adapter in server.proven)
        }

    # ------------------------------------------------------------ the watch

    async def run(self) -> None:
        """Watch the servers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._keep(await self._addresses.find(), tasks)
                self._found.set()
                await asyncio.sleep(self.settings.resolve_s)

    async def settled(self, within: float) -> None:
        """Wait until each server has been checked once, so many seconds at most."""
        try:
            async with asyncio.timeout(within):
                await self._found.wait()
                for server in self.servers:
                    await server.checked.wait()
        except TimeoutError:
            log.warning("replicas_not_settled", backend=self.name, after_s=within)

    def _keep(self, found: Sequence[Found], tasks: asyncio.TaskGroup) -> None:
        """Watch these servers, and no others. Requests on those that are gone go on."""
        now = {one.replica.url: one for one in found}
        for url in [url for url in self._servers if url not in now]:
            self._tasks.pop(url).cancel()
            self._say("replica_gone", self._servers.pop(url))
        self._balancer.keep(now)
        for url, one in now.items():
            server = self._servers.get(url)
            if server is None:
                server = self._servers[url] = Server(one.replica, one.address)
                self._tasks[url] = tasks.create_task(self._watch(server), name=f"watch {url}")
            elif server.address != one.address:
                server.address = one.address
                server.forget()
                server.suspect.set()
        self._places.serve()

    async def _watch(self, server: Server) -> None:
        while True:
            await self.check(server)
            server.checked.set()
            await asyncio.sleep(min(_PAUSE, self.settings.check_s))
            try:
                async with asyncio.timeout(self.settings.check_s):
                    await server.suspect.wait()
            except TimeoutError:
                pass
            server.suspect.clear()

    async def check(self, server: Server) -> None:
        """Ask whether a server is well; then have it prove what it has not proven yet."""
        async with server.busy:
            is_healthy = await self._is_healthy(server)
            self._note_health(server, is_healthy)
            if is_healthy:
                loaded = await self._reconcile(server)
                for adapter in self.wanted:
                    if self._is_due(server, adapter):
                        await self._prove(server, adapter, adapter.id in loaded)
        self._places.serve()

    async def _is_healthy(self, server: Server) -> bool:
        try:
            async with asyncio.timeout(self.settings.answer_s):
                return await self._dialect.healthy(self._session, server.replica.url)
        except (TimeoutError, ProxyError):
            return False

    def _note_health(self, server: Server, is_healthy: bool) -> None:
        if is_healthy != server.is_healthy or not server.checked.is_set():
            self._say("replica_up" if is_healthy else "replica_down", server)
        if not is_healthy:
            server.forget()
        server.is_healthy = is_healthy
        if server.replica.url in self._servers:
            self._balancer.set_healthy(server.replica.url, is_healthy)

    # ------------------------------------------------------------ proof

    async def _reconcile(self, server: Server) -> set[str]:
        """Notice what is missing and unload what is no longer wanted, where the engine can; ids of
        the adapters that it says it has."""
        url = server.replica.url
        try:
            async with asyncio.timeout(self.settings.canary_s):
                loaded = await self._dialect.adapters(self._session, url)
                if loaded is None:
                    return set()
                if not server.proven <= loaded:
                    self._say("replica_restarted", server)
                    server.forget()
                if self.loads_at_run_time:
                    for id in sorted(self._retired & loaded):
                        await self._dialect.unload(self._session, url, id)
                return loaded
        except (TimeoutError, ProxyError) as error:
            self._say("replica_not_reconciled", server, reason=str(error) or "no answer in time")
            return set()

    def _is_due(self, server: Server, adapter: Adapter) -> bool:
        tried_at = server.tried_at.get(adapter.id)
        is_proven = adapter.id in server.proven
        holds = self.settings.renew_s if is_proven else self.settings.retry_s
        return tried_at is None or self._clock() - tried_at >= holds

    async def _prove(self, server: Server, adapter: Adapter, is_loaded: bool) -> None:
        url, agree = server.replica.url, self.settings.canary_tokens
        try:
            async with asyncio.timeout(self.settings.canary_s):
                if self.loads_at_run_time and not is_loaded:
                    await self._dialect.load(self._session, url, adapter)
                most = canary.tokens(adapter.canary, agree)
                answered = await self._dialect.greedy(
                    self._session, url, adapter.id, adapter.canary.prompt, most
                )
        except (TimeoutError, ProxyError) as error:
            # No answer is no proof of the contrary: a full server is slow to give one.
            if adapter.id not in server.proven:
                self._judge(server, adapter, str(error) or "no answer to the canary in time")
            server.tried_at[adapter.id] = self._clock()
        else:
            why = canary.complaint(adapter.canary, answered, agree, self._decode)
            self._judge(server, adapter, why)

    def _judge(self, server: Server, adapter: Adapter, why: str | None) -> None:
        """Note a proof, or why there is none, and say what is new about it."""
        id = adapter.id
        server.tried_at[id] = self._clock()
        is_news = server.refused.get(id) != why or (why is None and id not in server.proven)
        server.proven.discard(id)
        server.refused.pop(id, None)
        if id not in self._wanted:
            return
        if why is None:
            server.proven.add(id)
        else:
            server.refused[id] = why
        if is_news and why is None:
            self._say("adapter_proven", server, adapter=id)
        elif is_news:
            self._say("adapter_refused", server, adapter=id, reason=why or "")

    # ------------------------------------------------------------ for a roll-out

    @asynccontextmanager
    async def drained(self, server: Server) -> AsyncIterator[None]:
        """Keep new requests from a server, wait until it has none; give it work again at the end.

        Raises TimeoutError when its requests take longer than `drain_s`.
        """
        url = server.replica.url
        self._balancer.set_draining(url, True)
        try:
            async with asyncio.timeout(self.settings.drain_s):
                while self._balancer.in_flight(url):
                    server.freed.clear()
                    await server.freed.wait()
            yield
        finally:
            if url in self._servers:
                self._balancer.set_draining(url, False)
            self._places.serve()

    def _say(self, event: str, server: Server, **more: str) -> None:
        tell = log.warning if event == "adapter_refused" else log.info
        tell(event, backend=self.name, replica=server.name, **more)
