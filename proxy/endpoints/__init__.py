"""HTTP in and out. Endpoints decide nothing: they read a request, ask the gateway, send the answer.

Raw ASGI callables: a Request and a Response object each cost more than the gateway itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import msgspec
from starlette.types import Receive, Send

from proxy.errors import TooLarge, UnsupportedMediaType

PATIENCE = 0.05
"""Seconds after which a request is worth a task that watches for its client leaving. Most answers
that are not generated are through by then, and a task costs more than routing does."""


class ClientGone(Exception):
    """The client has closed the connection; nobody is left to be answered."""


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


async def read_json(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes of what says it is JSON.

    Raises TooLarge, as soon as that is known, UnsupportedMediaType, and ClientGone.
    """
    _check_type(headers)
    _check_size(int(headers.get(b"content-length", b"0")), limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        _check_size(len(message["body"]), limit)
        return bytes(message["body"])
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        _check_size(len(body), limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise ClientGone


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        said = repr(kind.decode("latin-1")) if kind else "no content-type"
        raise UnsupportedMediaType(f"the body must be application/json, the request says {said}")
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        raise UnsupportedMediaType(
            f"content-encoding {encoding.decode('latin-1')!r} is not read here; send it plain"
        )


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"the body is larger than {limit} bytes (limits.max_body_mib)")


async def while_connected(answering: Awaitable[None], receive: Receive) -> None:
    """Run `answering`; cancel it, and raise ClientGone, when the client leaves before its end."""
    watches: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            timer = asyncio.get_running_loop().call_later(
                PATIENCE, lambda: watches.append(tasks.create_task(_watch(receive)))
            )
            try:
                await answering
            finally:
                timer.cancel()
                for watch in watches:
                    watch.cancel()
    except* ClientGone:
        raise ClientGone from None
    except* Exception as group:
        raise group.exceptions[0] from None


async def _watch(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGone
