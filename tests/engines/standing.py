"""What the stand-ins for engines have in common: a real socket, and a test's hand on the tap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from tests.engines.toy import Token, Toy

EVENT_STREAM = {"content-type": "text/event-stream"}


@dataclass
class StandIn:
    """A server that a test can hold, kill and look into."""

    toy: Toy
    url: str = ""
    bodies: list[dict[str, object]] = field(default_factory=list)
    """Accepted requests for an answer, in the order of their coming."""
    prompts: list[list[int]] = field(default_factory=list)
    """Token ids that the engine saw, of native requests."""
    refusals: list[str] = field(default_factory=list)
    """What was refused, and why."""
    holds_after: int | None = None
    """Tokens after which an answer stands still."""
    dies_after: int | None = None
    """Tokens after which the connection breaks."""
    shreds: bool = False
    """Whether each byte is sent alone."""
    is_full: bool = False
    is_sick: bool = False
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """An answer stands still."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """A client left before its answer was over."""

    def routes(self) -> Iterable[web.RouteDef]:
        raise NotImplementedError

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.is_sick else 200)

    async def paced(self, tokens: Sequence[Token], request: web.Request) -> AsyncIterator[Token]:
        """The tokens, as the test lets them go."""
        for number, token in enumerate(tokens):
            if number == self.dies_after:
                assert request.transport is not None
                request.transport.abort()
            if number == self.holds_after:
                self.held.set()
                await asyncio.Event().wait()
            yield token

    @asynccontextmanager
    async def streaming(self, request: web.Request) -> AsyncIterator[web.StreamResponse]:
        """A stream of events that has begun."""
        response = web.StreamResponse(headers=EVENT_STREAM)
        await response.prepare(request)
        try:
            yield response
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned.set()
            raise

    async def send(self, response: web.StreamResponse, event: object) -> None:
        """One event."""
        content = b"data: " + msgspec.json.encode(event) + b"\n\n"
        step = 1 if self.shreds else len(content)
        for at in range(0, len(content), step):
            await response.write(content[at : at + step])


@asynccontextmanager
async def standing(stand_in: StandIn) -> AsyncIterator[None]:
    """The stand-in on a free port of this machine; its `url` is set."""
    app = web.Application()
    app.add_routes(stand_in.routes())
    # Without `handler_cancellation`, aiohttp notices a client that left at the next write only.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()
