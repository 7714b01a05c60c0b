"""What every request gets, whatever answers it: an id, OpenAI's form of errors, one log line.

Pure ASGI, around everything else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy import sse
from proxy.errors import BackendRefused, MethodNotAllowed, NotFound, ProxyError
from proxy.ids import new_id
from proxy.logs import CLIENT_GONE, Facts, request_id

log = structlog.get_logger(__name__)

_GIVEN_IDS = (b"x-request-id", b"x-client-request-id")
_SANE_ID = re.compile(rb"[!-~]{1,128}")


class Requests:
    """Gives each request an id and its Facts, puts them into the response's headers and the log;
    answers exceptions in OpenAI's form: a status before the head, one last event after it."""

    def __init__(
        self,
        app: ASGIApp,
        tell: bool = True,
        finished: Callable[[Facts], None] = lambda facts: None,
    ) -> None:
        """`tell`: whether the response says who answered, and why; `finished` is told when the
        request is over."""
        self._app = app
        self._tell = tell
        self._finished = finished
        # Bound once: each look-up on the lazy logger costs as much as what it finds.
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        facts = Facts(request_id=_request_id(headers))
        scope.setdefault("state", {}).update(facts=facts, headers=headers)
        # Starlette's router raises HTTPException instead of answering in plain text if this is set.
        scope["app"] = self
        scope["path"] = scope["path"].rstrip("/") or "/"
        sent = _Sent(facts, send, self._tell)
        before = request_id.set(facts.request_id)
        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            told = _told(error, scope)
            facts.error = told.code or told.type
            await _answer(told, sent)
        finally:
            self._log.info("request_answered", **_line(scope, facts, sent), **facts.line)
            request_id.reset(before)
            self._finished(facts)


class _Sent:
    """A `send` that adds the headers of Facts, and notes the head and the times."""

    def __init__(self, facts: Facts, send: Send, tell: bool) -> None:
        self._facts = facts
        self._tell = tell
        self._send = send
        self._started_at = time.perf_counter()
        self.head: Message | None = None
        """The status and headers that were sent."""
        self.first_byte_s: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head = message
            self._facts.status = message["status"]
            message["headers"] = [*_kept(message, self._facts), *_headers(self._facts, self._tell)]
        elif self.first_byte_s is None:
            self.first_byte_s = self.total_s
        await self._send(message)

    @property
    def total_s(self) -> float:
        """Seconds since the request began."""
        return round(time.perf_counter() - self._started_at, 6)


def _line(scope: Scope, facts: Facts, sent: _Sent) -> dict[str, object]:
    return {
        "method": scope["method"],
        "path": scope["path"],
        "status": facts.status or CLIENT_GONE,
        "first_byte_s": sent.first_byte_s,
        "total_s": sent.total_s,
    }


def _kept(message: Message, facts: Facts) -> list[tuple[bytes, bytes]]:
    """The response's own headers; a cloud's limits are not the caller's where it has its own."""
    own: list[tuple[bytes, bytes]] = message.get("headers", [])
    if not facts.limits:
        return own
    ours = {name.encode() for name in facts.limits}
    return [(name, value) for name, value in own if name not in ours]


def _headers(facts: Facts, tell: bool) -> list[tuple[bytes, bytes]]:
    told = [("x-request-id", facts.request_id), *facts.limits.items()]
    if tell:
        told += facts.headers
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in told]


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own id where it sends a sane one, for correlation; else a new one."""
    for name in _GIVEN_IDS:
        given = headers.get(name)
        if given is not None and _SANE_ID.fullmatch(given):
            return str(given, "ascii")
    return new_request_id()


def new_request_id() -> str:
    """An id for a request that brings none."""
    return f"req_{new_id()}"


async def _answer(error: ProxyError, sent: _Sent) -> None:
    if sent.head is None:
        await sent(_head(error))
        await sent({"type": "http.response.body", "body": error_body(error)})
    elif _is_stream(sent.head):
        await sent({"type": "http.response.body", "body": sse.encode(error_body(error))})
    else:
        raise error


def _told(error: Exception, scope: Scope) -> ProxyError:
    """The exception as the client is told of it; what nobody foresaw is logged here, once."""
    match error:
        case ProxyError():
            return error
        case HTTPException(status_code=405):
            allowed = (error.headers or {}).get("Allow", "another method")
            return MethodNotAllowed(f"{scope['method']} is not allowed here; use {allowed}")
        case HTTPException(status_code=404):
            return NotFound(f"there is nothing at {scope['method']} {scope['path']}")
        case _:
            log.error("request_failed", exc_info=error)
            return ProxyError(
                "something went wrong here; the log has more, under this request's id"
            )


def error_body(error: ProxyError) -> bytes:
    """OpenAI's error object, with all of its four keys."""
    told: dict[str, object] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if isinstance(error, BackendRefused) and error.innererror is not None:
        told["innererror"] = msgspec.Raw(error.innererror)
    return msgspec.json.encode({"error": told})


def _head(error: ProxyError) -> Message:
    headers = {"content-type": "application/json", **error.headers}
    headers["content-length"] = str(len(error_body(error)))
    return {
        "type": "http.response.start",
        "status": error.status,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }


def _is_stream(head: Message) -> bool:
    kind: bytes = dict(head["headers"]).get(b"content-type", b"")
    return kind.startswith(b"text/event-stream")
