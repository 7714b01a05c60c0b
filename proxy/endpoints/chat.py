"""POST /v1/chat/completions, streamed and whole."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from proxy.cascade import Streamed, Whole
from proxy.endpoints import ClientGone, read_json, send_bytes, send_head, while_connected
from proxy.gateway import Gateway, Inbound

_STREAM = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Keeps caches and nginx from holding events back."""


class ChatCompletions:
    """Raw ASGI endpoint around the gateway."""

    def __init__(self, gateway: Gateway, max_body: int) -> None:
        self._gateway = gateway
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            body = await read_json(headers, receive, self._max_body)
            inbound = Inbound(headers, body, scope["state"]["facts"])
            await while_connected(self._answer(inbound, send), receive)
        except ClientGone:
            scope["state"]["facts"].outcome = "client_aborted"

    async def _answer(self, inbound: Inbound, send: Send) -> None:
        async with self._gateway.answer(inbound) as answer:
            match answer:
                case Whole(status, headers, content):
                    await send_bytes(send, content, headers, status)
                case Streamed():
                    await _relay(answer, send)


async def _relay(answer: Streamed, send: Send) -> None:
    await send_head(send, {**answer.headers, **_STREAM}, answer.status)
    async for piece in answer.content:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
