"""A new champion is prepared on its backend first, then put in its place; no request notices.

    champions.json changed ──▶ read the bundles ──▶ prepare (preparing.py) ──▶ flip
                          │         │ broken           │ failed
                          │         ▼                  ▼
                          │    the old champion stays, and the log and /ready say why
                          └──▶ what is proven already: at once

A canary (routes.yaml, or a candidate in the champion file) is prepared in the same way, after the
champions; until it has passed, and when it does not, the champion answers all, and log and /ready
say why. A candidate in its stage `shadow` is asked by shadow.py alone.

Looking and preparing are two tasks: a rollback takes effect at the next look, though a server is
being restarted meanwhile. Requests under way end with the adapter that they began with: the former
champions stay loaded until the next roll-out, and while a new one is watched, which makes going
back to them a matter of one flip.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import structlog

from proxy.catalog import BadAdapter, Catalog, Champions, Proven
from proxy.comparison import Canary
from proxy.preparing import Prepares, RolloutFailed, RolloutWaits
from proxy.protocol.adapter import MANIFEST, Adapter
from proxy.protocol.champions import CHAMPIONS, Candidate

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
"""Seconds between two looks at a champion file. Chosen: one `stat`; promotion is not urgent."""
_RETRY_S = 5.0
"""Seconds until what a roll-out waits for is looked at again. Chosen: one health check."""

_BUNDLES = "."
"""The directory itself, which looks otherwise when a bundle is put into it."""

Stamp: TypeAlias = tuple[int, int, int]
"""Time of change, number and size of a file: two of a kind are the same content."""


class Source(NamedTuple):
    """Where a backend's champions come from, and who gets them ready."""

    directory: Path
    read: Callable[[Mapping[str, Adapter]], Champions]
    """Reads and checks the bundles that are not known by their ids; blocks. Raises BadAdapter."""
    backend: Prepares
    stamp: Stamp | None = None
    """The champion file's when it was read for the start; None where what it names may have to be
    rolled out still: servers elsewhere may have been started with other adapters."""


class Place(NamedTuple):
    """Where a domain's canary can answer, if it can."""

    backend: str
    """The first of the plan that has adapters."""
    canary: Canary | None = None
    """The one of routes.yaml."""
    obstacle: str = ""
    """Why a candidate of the champion file gets no share there."""


class CandidateStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What /ready says of a candidate of the champion file."""

    adapter: str
    stage: str
    share: float
    state: Literal["loading", "proven", "refused"]
    reason: str = ""


class Rollouts:
    """Follows the champion files of all backends that have adapters."""

    def __init__(
        self,
        catalog: Catalog,
        sources: Mapping[str, Source],
        places: Mapping[str, Place] | None = None,
    ) -> None:
        """`places`: of each domain that has a local backend."""
        self.is_over: Callable[[], bool] = lambda: False
        """Whether what comes now is another's: this proxy is on its way out."""
        self.told: dict[str, str] = {}
        """Backend, or canary, → why its roll-out is not done yet, for /ready."""
        self.candidates: dict[str, CandidateStatus] = {}
        """Domain → its candidate, for /ready."""
        self._followers = [
            _Follower(self, catalog, name, source, _of(name, places or {}))
            for name, source in sources.items()
        ]

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for one in self._followers:
                tasks.create_task(one.watch(), name=f"champion file of {one.name}")
                tasks.create_task(one.prepare(), name=f"champions of {one.name}")


def _of(backend: str, places: Mapping[str, Place]) -> dict[str, Place]:
    return {domain: place for domain, place in places.items() if place.backend == backend}


class _Wanted(NamedTuple):
    """A canary, and who says so."""

    adapter: str
    share: float
    candidate: Candidate | None
    shadow: float = 0.0


class _Follower:
    """Follows one champion file, for one backend."""

    def __init__(
        self,
        rollouts: Rollouts,
        catalog: Catalog,
        name: str,
        source: Source,
        places: Mapping[str, Place],
    ) -> None:
        self.name = name
        self._rollouts = rollouts
        self._catalog = catalog
        self._source = source
        self._places = places
        self._seen = source.stamp
        self._bundles = stamp(source.directory, _BUNDLES)
        self._aliases = catalog.champions(name).aliases
        """What the file says, or said last."""
        self._next: Champions | None = None
        """What the file says, where it has not been put in place."""
        self._news = asyncio.Event()
        self._settled: dict[str, tuple[str, Stamp | None]] = {}
        """Domain → its canary, and the canary's manifest, as it was when it passed or failed."""
        self._warned: set[tuple[str, str]] = set()
        """What the log has of each domain: reasons come and go while an engine is looked at."""

    # ------------------------------------------------------------ looking

    async def watch(self) -> None:
        """Read the file when it changes, or a bundle comes that may be pinned, and do at once what
        needs no preparation."""
        while not self._rollouts.is_over():
            await asyncio.sleep(_LOOK_S)
            found = await asyncio.to_thread(stamp, self._source.directory)
            bundles = await asyncio.to_thread(stamp, self._source.directory, _BUNDLES)
            # A file that is gone is no decision: the champions stay.
            if found is None and self._seen is not None:
                continue
            if (found, bundles) != (self._seen, self._bundles):
                self._seen, self._bundles = found, bundles
                await self._notice()

    async def _notice(self) -> None:
        try:
            champions = await asyncio.to_thread(
                self._source.read, self._catalog.champions(self.name).by_id
            )
        except BadAdapter as error:
            self._next = None
            self._fail(error)
            return
        self._next, self._aliases = champions, champions.aliases
        if self._source.backend.has(champions.adapters):
            self._catalog.flip(self.name, champions)
        self._share()
        self._news.set()

    def _share(self) -> None:
        """Give each canary that has passed its share of now; take it from those that are over."""
        for domain in self._places:
            wanted = self._wanted(domain)
            canary = self._catalog.canary(domain)
            if canary is None:
                continue
            if wanted is None or wanted.adapter != canary.adapter.id:
                self._catalog.withdraw_canary(domain)
                log.info("canary_withdrawn", domain=domain, adapter=canary.adapter.id)
            else:
                proven = canary._replace(share=wanted.share, shadow=wanted.shadow)
                self._catalog.admit_canary(domain, proven)
        self._tell_candidates()

    # ------------------------------------------------------------ preparing

    async def prepare(self) -> None:
        """Prepare what the file names, then the canaries; again and again."""
        while not self._rollouts.is_over():
            self._news.clear()
            if self._next is not None:
                await self._roll(self._next)
            await self._look_at_canaries()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._news.wait()

    async def _roll(self, champions: Champions) -> None:
        """From what the file says to a flip, or to the reason why there is none."""
        ids = [adapter.id for adapter in champions.adapters]
        log.info("rollout_began", backend=self.name, adapters=ids)
        try:
            while not await self._prepared(champions):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._news.wait()
                if self._next is not champions:
                    return
        except RolloutFailed as error:
            if self._next is champions:
                self._next = None
                self._fail(error)
            return
        if self._next is not champions:
            return
        self._next = None
        self._catalog.flip(self.name, champions)
        self._rollouts.told.pop(self.name, None)
        # The champion may be another one now; canaries are prepared beside the new ones.
        self._settled.clear()
        log.info("rollout_done", backend=self.name, adapters=ids)

    async def _prepared(self, champions: Champions) -> bool:
        try:
            await self._source.backend.prepare(champions.adapters, champions.kept)
        except RolloutWaits as wait:
            if self._rollouts.told.get(self.name) != str(wait):
                log.warning("rollout_waits", backend=self.name, reason=str(wait))
            self._rollouts.told[self.name] = str(wait)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        self._rollouts.told[self.name] = str(error)
        log.error("rollout_failed", backend=self.name, reason=str(error))

    # ------------------------------------------------------------ canaries

    def _wanted(self, domain: str) -> _Wanted | None:
        """Who is to get a share of the domain; the champion file is asked before routes.yaml."""
        alias, canary = self._aliases.get(domain), self._places[domain].canary
        candidate = alias.candidate if alias is not None else None
        if candidate is None:
            return None if canary is None else _Wanted(canary.adapter, canary.share, None)
        if candidate.stage == "full":
            # It is the champion.
            return None
        share = candidate.share if candidate.stage == "canary" else 0.0
        shadow = candidate.share if candidate.stage == "shadow" else 0.0
        return _Wanted(candidate.adapter, share, candidate, shadow)

    async def _look_at_canaries(self) -> None:
        for domain in self._places:
            wanted = self._wanted(domain)
            if wanted is not None:
                await self._look_at(domain, wanted)

    async def _look_at(self, domain: str, wanted: _Wanted) -> None:
        id = wanted.adapter
        seen = id, await asyncio.to_thread(stamp, self._source.directory / id, MANIFEST)
        if self._settled.get(domain) == seen:
            return
        try:
            adapter = await self._passed(domain, wanted)
        except RolloutWaits as wait:
            self._keep_from(domain, wanted, str(wait), "loading")
        except (BadAdapter, RolloutFailed) as error:
            self._settled[domain] = seen
            # What is not there may still be on its way.
            self._keep_from(domain, wanted, str(error), "refused" if seen[1] else "loading")
        else:
            self._settled[domain] = seen
            self._admit(domain, adapter)

    async def _passed(self, domain: str, wanted: _Wanted) -> Adapter:
        """The adapter, once its backend can answer as it; raises what keeps it from that."""
        id, obstacle = wanted.adapter, self._places[domain].obstacle
        if wanted.candidate is not None and obstacle:
            raise RolloutFailed(obstacle)
        champions = self._catalog.champions(self.name)
        if id not in champions.by_id:
            champions = await asyncio.to_thread(self._source.read, champions.by_id)
        if id not in champions.by_id:
            raise RolloutFailed(f"there is no sound bundle {id!r} in {self._source.directory}")
        champion = self._catalog.champion(self.name, domain)
        if champion is not None and champion.id == id:
            raise RolloutFailed("it is the champion; take `canary` out of routes.yaml")
        await self._source.backend.add([champions.by_id[id]])
        return champions.by_id[id]

    def _admit(self, domain: str, adapter: Adapter) -> None:
        """Give it its share, unless the file says otherwise by now."""
        wanted = self._wanted(domain)
        if wanted is None or wanted.adapter != adapter.id:
            return
        proven = Proven(self.name, adapter, wanted.share, wanted.shadow)
        self._catalog.admit_canary(domain, proven)
        self._rollouts.told.pop(_about(domain), None)
        self._warned = {one for one in self._warned if one[0] != domain}
        self._tell(domain, wanted, "proven")
        log.info("canary_admitted", domain=domain, backend=self.name, adapter=adapter.id)

    def _keep_from(
        self, domain: str, wanted: _Wanted, reason: str, state: Literal["loading", "refused"]
    ) -> None:
        """The champion answers all; say so, each reason once."""
        self._catalog.withdraw_canary(domain)
        if (domain, reason) not in self._warned:
            self._warned.add((domain, reason))
            log.warning("canary_not_used", domain=domain, adapter=wanted.adapter, reason=reason)
        self._rollouts.told[_about(domain)] = reason
        self._tell(domain, wanted, state, reason)

    # ------------------------------------------------------------ for /ready

    def _tell(
        self,
        domain: str,
        wanted: _Wanted,
        state: Literal["loading", "proven", "refused"],
        reason: str = "",
    ) -> None:
        if wanted.candidate is not None:
            stage, share = wanted.candidate.stage, wanted.candidate.share
            self._rollouts.candidates[domain] = CandidateStatus(
                wanted.adapter, stage, share, state, reason
            )

    def _tell_candidates(self) -> None:
        """Forget those that are over; those that go on are in another stage."""
        for domain in self._places.keys() & self._rollouts.candidates.keys():
            wanted, told = self._wanted(domain), self._rollouts.candidates[domain]
            if wanted is None or told.adapter != wanted.adapter:
                del self._rollouts.candidates[domain]
                self._rollouts.told.pop(_about(domain), None)
            else:
                self._tell(domain, wanted, told.state, told.reason)


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
