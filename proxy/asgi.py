"""Headrace as an ASGI application, for a server of one's own:

    HEADRACE_CONFIG=routes.yaml granian --interface asgi --loop uvloop proxy.asgi:app

`headrace serve` is uvicorn with bounds for a request's head, SIGHUP, and workers that tell each
other what was counted; with another server, that is the server's to do. Since nobody here knows
where that one listens, the settings must have keys.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from starlette.types import Receive, Scope, Send

from proxy import config, logs
from proxy.app import Proxy, running
from proxy.config import Config
from proxy.errors import BadConfig, CannotStart
from proxy.metrics import Metrics
from proxy.quotas.memory import MemoryLedger
from proxy.reload import Live, live
from proxy.siblings import Siblings

log = structlog.get_logger(__name__)

SETTINGS = "HEADRACE_CONFIG"
"""Environment variable that names the settings. Default: routes.yaml here."""


@asynccontextmanager
async def proxies(
    path: Path, check: Callable[[Config], None], siblings: Siblings | None = None
) -> AsyncIterator[Live]:
    """The proxy of these settings and, when they change, its successors.

    `check` raises CannotStart for settings that are not to be served here.
    """
    used, metrics = MemoryLedger(), Metrics({})

    @asynccontextmanager
    async def start(live: Live) -> AsyncIterator[Proxy]:
        settings = await asyncio.to_thread(config.load, path)
        check(settings)
        async with running(settings, used, live, metrics, siblings) as proxy:
            yield proxy

    longest_s = config.load(path).limits.longest_s
    async with live(path, start, longest_s, siblings) as proxies:
        yield proxies


class Application:
    """Starts and ends with its server, by ASGI's lifespan."""

    def __init__(self) -> None:
        self._proxies: Live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._proxies(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        logs.configure()
        await receive()
        has_started = False
        try:
            async with proxies(Path(os.environ.get(SETTINGS, "routes.yaml")), _check) as found:
                self._proxies, has_started = found, True
                await send({"type": "lifespan.startup.complete"})
                await receive()
                found.begin_draining()
        except Exception as error:
            if has_started:
                # A task of ours has died: a process without it must not go on.
                log.exception("stopped")
                os.kill(os.getpid(), signal.SIGTERM)
                raise
            await send({"type": "lifespan.startup.failed", "message": f"headrace: {_said(error)}"})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _check(settings: Config) -> None:
    if settings.auth.is_open:
        raise BadConfig(
            "no key is needed to get in; add one under auth.keys, or use `headrace serve`"
            " on 127.0.0.1"
        )


def _said(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, CannotStart) else repr(error)


app = Application()
