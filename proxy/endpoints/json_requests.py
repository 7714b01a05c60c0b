"""POST of a JSON body: chat completions, completions, embeddings, responses; streamed and whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from proxy.account import check_body
from proxy.auth import Authenticator, Caller
from proxy.cascade import Give
from proxy.endpoints import ClientGone, caller_of, send_answer, while_connected
from proxy.endpoints.reading import read_json
from proxy.gateway import Inbound
from proxy.rename import with_model

Asked: TypeAlias = Callable[[Inbound, Give], Awaitable[None]]
"""What gives the answer to a request: a method of the gateway, or of what stands beside it."""


class JsonRequests:
    """Raw ASGI endpoint: reads a request, asks, sends the answer."""

    def __init__(self, asked: Asked, auth: Authenticator, max_body: int) -> None:
        """`max_body`: bytes, unpacked."""
        self._asked = asked
        self._auth = auth
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["state"]["headers"]
        caller = caller_of(scope, self._auth)
        try:
            body = await read_json(headers, receive, self._max_body)
            check_body(caller, body)
            inbound = _inbound(scope, caller, headers, body)
            await while_connected(self._asked(inbound, partial(send_answer, send)), receive)
        except ClientGone:
            scope["state"]["facts"].outcome = "client_aborted"


def _inbound(scope: Scope, caller: Caller, headers: dict[bytes, bytes], body: bytes) -> Inbound:
    deployment = scope["state"].get("deployment")
    if deployment is not None:
        body = with_model(body, deployment)
    return Inbound(caller, headers, body, scope["state"]["facts"])
