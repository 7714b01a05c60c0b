"""Machines on which stand-ins run, are killed, and run again on the same port.

async with farm(TgiStandIn, "api-v1", machines=2) as machines: …
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.engines import bundles
from tests.engines.standing import StandIn
from tests.engines.tgi_stand_in import TgiStandIn
from tests.engines.toy import Token
from tests.engines.vllm_stand_in import VllmStandIn

PAUSE_S = 0.01
"""Seconds between two tokens: some 25 of them make an answer that takes a while."""


class Unhurried(StandIn):
    """Takes its time, so that a test can come between two tokens."""

    async def paced(self, tokens: Sequence[Token], request: web.Request) -> AsyncIterator[Token]:
        async for token in super().paced(tokens, request):
            await asyncio.sleep(PAUSE_S)
            yield token


class SlowTgi(Unhurried, TgiStandIn):
    """TGI, one token after the other."""


class SlowVllm(Unhurried, VllmStandIn):
    """vLLM, one token after the other."""


@dataclass
class Machine:
    """A port on which an engine runs, or does not."""

    kind: Callable[..., StandIn]
    adapters: list[str]
    """Those that it is started with."""
    port: int = 0
    host: str = "127.0.0.1"
    engine: StandIn = field(init=False)
    """The one that runs, or ran last."""
    starts: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """A new process: it knows the adapters that it is started with, and no others."""
        self.engine = self.kind(bundles.toy(*self.adapters))
        app = web.Application()
        app.add_routes(self.engine.routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        self.starts += 1

    async def kill(self) -> None:
        """The process is gone, and with it each connection, wherever it was."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for connection in list(runner.server.connections if runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()


@asynccontextmanager
async def farm(
    kind: Callable[..., StandIn], *adapters: str, machines: int = 2
) -> AsyncIterator[list[Machine]]:
    """Machines that run, each with these adapters."""
    made = [Machine(kind, list(adapters)) for _ in range(machines)]
    try:
        for machine in made:
            await machine.start()
        yield made
    finally:
        for machine in made:
            await machine.kill()
