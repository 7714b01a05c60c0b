"""HTTP in and out. Endpoints decide nothing: they read a request, ask the gateway, send the answer.

Raw ASGI callables: a Request and a Response object each cost more than the gateway itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator, Caller
from proxy.cascade import Answer, Streamed, Whole

EVENTS = "text/event-stream"
_STREAM = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Keeps caches and nginx from holding events back."""
PATIENCE = 0.05
"""Seconds after which a request is worth a task that watches for its client leaving. Most answers
that are not generated are through by then, and a task costs more than routing does."""


class ClientGone(Exception):
    """The client has closed the connection; nobody is left to be answered."""


def caller_of(scope: Scope, auth: Authenticator) -> Caller:
    """Who sent a request, noted for its log line; raises Unauthenticated."""
    caller = auth.authenticate(scope["state"]["headers"])
    facts = scope["state"]["facts"]
    facts.tenant, facts.caller = caller.tenant, caller.name
    return caller


async def send_json(send: Send, content: object, status: int = 200) -> None:
    """Send a whole answer, encoded as JSON."""
    await send_bytes(
        send, msgspec.json.encode(content), {"content-type": "application/json"}, status
    )


async def send_bytes(
    send: Send, content: bytes, headers: Mapping[str, str], status: int = 200
) -> None:
    """Send a whole answer."""
    await send_head(send, {**headers, "content-length": str(len(content))}, status)
    await send({"type": "http.response.body", "body": content})


async def send_head(send: Send, headers: Mapping[str, str], status: int = 200) -> None:
    """Send status and headers; the body is up to the caller."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def send_answer(send: Send, answer: Answer) -> None:
    """Send what the gateway, or a cloud, answers."""
    match answer:
        case Whole(status, headers, content):
            await send_bytes(send, content, headers, status)
        case Streamed(status, headers, content):
            kept = _STREAM if headers.get("content-type", "").startswith(EVENTS) else {}
            await send_head(send, {**headers, **kept}, status)
            async for piece in content:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def while_connected(
    answering: Awaitable[None], receive: Receive, is_read: asyncio.Event | None = None
) -> None:
    """Run `answering`; cancel it, and raise ClientGone, when the client leaves before its end.

    `is_read`: the request's body has been read; until then `receive` is not ours to call.
    """
    watch = _Watch(receive, is_read)
    timer = asyncio.get_running_loop().call_later(PATIENCE, watch.begin)
    try:
        await answering
    except BaseException as error:
        if watch.is_to_blame_for(error):
            raise ClientGone from None
        raise
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Waits for a client to leave, and then cancels who answers it. To be made by that task."""

    def __init__(self, receive: Receive, is_read: asyncio.Event | None) -> None:
        self._receive = receive
        self._is_read = is_read
        self._answering = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._has_left = False

    def begin(self) -> None:
        self._watching = asyncio.create_task(self._wait())

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def is_to_blame_for(self, error: BaseException) -> bool:
        """Whether the answer ended since its client has left, and for no other reason."""
        if not self._has_left or self._answering is None:
            return False
        return not self._answering.uncancel() or not isinstance(error, asyncio.CancelledError)

    async def _wait(self) -> None:
        if self._is_read is not None:
            await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        if self._answering is not None:
            self._answering.cancel()
