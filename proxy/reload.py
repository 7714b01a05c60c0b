"""The settings change while requests are answered, and no request notices.

    SIGHUP, a changed file, POST /admin/reload
        ──▶ read and check ──▶ start a proxy of the new settings ──▶ hand over ──▶ the old one ends
                 │ wrong             │ does not start                             with its requests
                 ▼                   ▼
            the proxy of now stays, and the log, /ready and the answer say why

Each request is answered by the proxy that was there when it came. While both are there, what an
embedded engine holds is in memory twice.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy import heap
from proxy.errors import CannotStart
from proxy.siblings import Siblings

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
"""Seconds between two looks at the file. Chosen: one `stat`; nobody waits for it."""

_OURS = ("app", "router", "endpoint")
"""What we and Starlette put into a scope, by which a former proxy would be held."""

_PATIENCE_S = 600.0
"""Seconds that other workers have to reload, which loads an embedded engine anew."""

_Stamp: TypeAlias = tuple[int, int, int]


class Reloaded(msgspec.Struct, frozen=True):
    """What the last attempt to change the settings came to."""

    generation: int
    """1 for the settings of the start, one more with each change."""
    at: float
    """Seconds since the epoch."""
    problem: str | None = None
    """Why the settings that were found are not in use; None where they are."""


class Running(Protocol):
    """A proxy that is up: what `app.running` gives."""

    @property
    def app(self) -> ASGIApp:
        """Answers requests."""

    def begin_draining(self) -> None:
        """No new requests, please."""


class _Generation:
    """One proxy, and the requests that it has."""

    def __init__(self) -> None:
        self.started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        self.retired = asyncio.Event()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._in_flight += 1
        self._idle.clear()
        try:
            await self.started.result().app(scope, receive, send)
        finally:
            # The server keeps it for as long as the connection is idle.
            for name in _OURS:
                scope.pop(name, None)
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def over(self, patience: float) -> None:
        """Wait until it is retired and, for so many seconds, until its requests are through."""
        await self.retired.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()


class Live:
    """The proxy of now, as an ASGI app; and its successors."""

    def __init__(
        self,
        path: Path,
        start: Callable[[Live], AbstractAsyncContextManager[Running]],
        patience: float,
        tasks: asyncio.TaskGroup,
        siblings: Siblings | None = None,
    ) -> None:
        """See `live`; proxies live in `tasks`."""
        self.told = Reloaded(0, 0.0)
        self._path = path
        self._start = start
        self._patience = patience
        self._tasks = tasks
        self._siblings = siblings
        if siblings is not None:
            siblings.tell("reload", self._told_reload)
        self._seen: _Stamp | None = None
        """The file as it was before it was last read."""
        self._now: _Generation
        self._wanted = asyncio.Event()
        self._changing = asyncio.Lock()
        self._is_draining = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._now.answer(scope, receive, send)

    # ------------------------------------------------------------ from outside

    def begin_draining(self) -> None:
        """No new requests, please: the server stops."""
        self._is_draining = True
        self._now.started.result().begin_draining()

    def want(self) -> None:
        """Read the settings anew, soon; for signal handlers."""
        self._wanted.set()

    async def reload_everywhere(self) -> Reloaded:
        """Read the settings anew, in all workers; what that came to, the first problem if any."""
        told = await self.reload()
        if told.problem is not None or self._siblings is None:
            return told
        others = await self._siblings.ask("reload", _PATIENCE_S)
        found = [msgspec.json.decode(other, type=Reloaded) for other in others]
        return next((other for other in found if other.problem is not None), told)

    async def _told_reload(self) -> bytes:
        return msgspec.json.encode(await self.reload())

    async def reload(self) -> Reloaded:
        """Read the settings anew; what that came to."""
        async with self._changing:
            # Before it is read: what is written meanwhile is seen as another change.
            self._seen = await asyncio.to_thread(_stamp, self._path) or self._seen
            try:
                following = await self._begun()
            except CannotStart as error:
                self._note(str(error))
            else:
                former, self._now = self._now, following
                former.started.result().begin_draining()
                former.retired.set()
                self._note(None)
        return self.told

    # ------------------------------------------------------------ inside

    async def begin(self) -> None:
        """Start the first proxy; raises CannotStart."""
        self._seen = await asyncio.to_thread(_stamp, self._path)
        self._now = await self._begun()
        self._note(None)

    def end(self) -> None:
        """End all proxies: nobody is to be answered any more."""
        self._patience = 0.0
        self._now.retired.set()

    async def _begun(self) -> _Generation:
        generation = _Generation()
        living = self._tasks.create_task(self._live(generation), name="proxy")
        try:
            await generation.started
        except asyncio.CancelledError:
            # The server stops, or who asked has left: nobody is there to hand over to it.
            living.cancel()
            raise
        return generation

    async def _live(self, generation: _Generation) -> None:
        try:
            async with self._start(self) as proxy:
                if self._is_draining:
                    proxy.begin_draining()
                generation.started.set_result(proxy)
                await generation.over(self._patience)
        except Exception as error:
            # Before it is up, that is the caller's to know; afterwards the whole process's.
            if generation.started.done():
                raise
            generation.started.set_exception(_cause(error))
            return
        # What it held hangs together in circles, tokenizers among it: some 20 MiB that the
        # collector would come to after many requests.
        del proxy, generation
        gc.collect()
        heap.trim()

    async def follow(self) -> None:
        """Reload when somebody wants it, or the file has changed, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wanted.wait()
            found = await asyncio.to_thread(_stamp, self._path)
            # A file that is gone is no change of settings: one that is being replaced, perhaps.
            if self._wanted.is_set() or found not in (None, self._seen):
                self._wanted.clear()
                await self.reload()

    def _note(self, problem: str | None) -> None:
        generation = self.told.generation + (problem is None)
        self.told = Reloaded(generation, time.time(), problem)
        if problem is not None:
            log.error("reload_refused", reason=problem)
        elif generation > 1:
            log.info("reloaded", generation=generation)


@asynccontextmanager
async def live(
    path: Path,
    start: Callable[[Live], AbstractAsyncContextManager[Running]],
    patience: float,
    siblings: Siblings | None = None,
) -> AsyncIterator[Live]:
    """The proxy of a file's settings, and its successors as the file changes.

    `start` reads the file anew and starts a proxy of it, or raises CannotStart; `patience`: seconds
    that requests have to finish when theirs is replaced; `siblings`: the other workers, if any.
    """
    async with asyncio.TaskGroup() as tasks:
        it = Live(path, start, patience, tasks, siblings)
        await it.begin()
        following = tasks.create_task(it.follow(), name="reload")
        try:
            yield it
        finally:
            following.cancel()
            it.end()


def _cause(error: Exception) -> CannotStart:
    """Why a proxy did not start; a group's refusal, if one is in it."""
    first: BaseException = error
    if isinstance(error, ExceptionGroup):
        first = error.subgroup(CannotStart) or error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, CannotStart) else CannotStart(f"stopped by {first!r}")


def _stamp(path: Path) -> _Stamp | None:
    """What the file looks like from outside; Kubernetes replaces the link that leads to it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
