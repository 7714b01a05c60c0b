"""A server that speaks OpenAI's protocol: what the client sent goes there, what it says comes back.

Bytes pass as they are, except for the model's name where it has another one there. Errors are
raised as ours: another backend may do better, or nobody can and the client is told why.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Self

import msgspec

from proxy import trace_context
from proxy.backends.base import Ask, Forward, Relayed
from proxy.backends.client import Answer, Client
from proxy.backends.plain_http import Broken
from proxy.errors import (
    BackendError,
    BackendLimited,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    ContextTooLong,
    ProxyError,
)
from proxy.protocol.openai import ChatRequest

_RELAYED = re.compile(r"content-type|x-ratelimit-.*|retry-after.*|x-should-retry|openai-.*")
"""Headers that clients read."""
_SANE = re.compile(r"[\t -~\x80-\xff]*")
"""A value that may be passed on: what is not could not be sent, or would be two headers."""
_FILE = re.compile(r"content-(length|disposition|range)|accept-ranges|etag|last-modified")
"""Headers that say what a file is; of an answer that is no chat, these too."""
_ENDED = re.compile(rb"\[DONE\]|\"finish_reason\"\s*:\s*\"|\"error\"\s*:")
"""What the last bytes of a whole stream hold; some servers leave `[DONE]` out."""
_PLAIN = {"accept-encoding": "identity"}
"""Compressed streams come in lumps: a chunk is held back until a block is full."""
_ANSWERS = ("application/json", "text/event-stream")
_TLS_KEPT_S = 15.0
"""Seconds for which an idle connection to a cloud is kept: clouds keep theirs for a minute or more,
and a new one takes two or three round trips."""
_TAIL = 4096
_MAX_ERROR = 64 * 1024


class OpenAIBackend:
    """One base URL with its key. Connections are kept between requests."""

    is_local = False

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        api_key: str | None = None,
        models: Mapping[str, str] | None = None,
        connect_s: float = 5.0,
        silence_s: float = 60.0,
        answer_s: float = 600.0,
        count_usage: bool = False,
        max_connections: int = 1000,
    ) -> None:
        """`models`: the client's name → the server's; names left out go as they are.

        `silence_s` bounds the wait for each piece of a stream; `answer_s` that for an answer that
        comes in one piece, silent until it is whole. `count_usage`: ask for the usage of streams.
        """
        self.name = name
        self._url = base_url.rstrip("/")
        self._key = api_key
        self._models = dict(models or {})
        self._count_usage = count_usage
        self._silence_s = silence_s
        self._answer_s = answer_s
        self._client = Client(
            connect_s,
            max_connections,
            for_tls=base_url.startswith("https://"),
            tls_kept_s=_TLS_KEPT_S,
        )
        self._is_closed = False

    def lacks(self, request: ChatRequest) -> str | None:
        """Nothing, as far as we know: what a server cannot serve, it says itself."""
        return None

    def ask(self, ask: Ask) -> AbstractAsyncContextManager[Relayed]:
        """Send the request on. Leaving the context cuts an answer that is still coming."""
        return _Asked(self, ask)

    async def answered(self, response: Answer, ask: Ask) -> Relayed:
        """The reply in a response whose head is there; raises ProxyError for one that is none."""
        if response.status != 200:
            raise await _error(response)
        if response.content_type not in _ANSWERS:
            # A login page, or a balancer's apology.
            raise BackendUnavailable(f"the backend answered in {response.content_type}")
        return Relayed(
            response.status,
            _relayed_headers(response),
            _Content(response),
            renamed=ask.request.model in self._models,
            whole=_whole(response),
            has_own_usage=self._counts(ask),
        )

    @asynccontextmanager
    async def relay(self, forward: Forward) -> AsyncIterator[Relayed]:
        """Send any request on, to the same base URL and with our key."""
        with _translated_errors():
            response = await self._forward(forward)
        try:
            if not 200 <= response.status < 300:
                raise await _error(response)
            renamed = forward.model in self._models
            headers = _relayed_headers(response) | _file_headers(response, renamed)
            yield Relayed(response.status, headers, _untouched(response), renamed)
        finally:
            response.close()

    async def ready(self) -> bool:
        """True until closed: what the server can do, it says when it is asked."""
        return not self._is_closed

    async def aclose(self) -> None:
        """Close all connections."""
        self._is_closed = True
        await self._client.close()

    async def post(self, ask: Ask) -> Answer:
        """The response to a chat request, as soon as its head is there; close it in any case."""
        url, body = self._place("/chat/completions", ask.request.model), self._body(ask)
        headers = {"content-type": "application/json", **_PLAIN, **await self._credentials()}
        silence_s = self._silence_s if ask.request.stream else self._answer_s
        self._check_open()
        headers.update(trace_context.outgoing())
        return await self._client.request("POST", url, body, headers, silence_s)

    def _body(self, ask: Ask) -> bytes:
        body = _renamed(ask.body, self._models.get(ask.request.model))
        return _with_usage(body) if self._counts(ask) else body

    def _counts(self, ask: Ask) -> bool:
        """Whether we ask for a usage that the client did not ask for."""
        is_wanted = self._count_usage or ask.counted
        return is_wanted and bool(ask.request.stream) and not ask.request.wants_usage

    async def _forward(self, forward: Forward) -> Answer:
        body = forward.body
        if isinstance(body, bytes) and forward.model is not None:
            body = _renamed(body, self._models.get(forward.model))
        url = self._place(forward.target, forward.model)
        headers = {**forward.headers, **_PLAIN, **await self._credentials()}
        headers.update(trace_context.outgoing())
        self._check_open()
        return await self._client.request(forward.method, url, body, headers, self._answer_s)

    def _place(self, target: str, model: str | None) -> str:
        """The URL, percent-encoded, of a path below the API's root; `model` as the client says."""
        return self._url + target

    async def _credentials(self) -> dict[str, str]:
        """The headers that say who we are; raises BackendUnavailable."""
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def _check_open(self) -> None:
        if self._is_closed:
            raise BackendUnavailable(f"the backend {self.name!r} has been closed")


def _renamed(body: bytes, model: str | None) -> bytes:
    """The body with another model; every other value stays byte for byte what it was."""
    if model is None:
        return body
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def _with_usage(body: bytes) -> bytes:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    options = fields.get("stream_options", msgspec.Raw(b"null"))
    kept = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None) or {}
    asked = {**kept, "include_usage": msgspec.Raw(b"true")}
    return msgspec.json.encode({**fields, "stream_options": asked})


def _relayed_headers(response: Answer) -> dict[str, str]:
    return {
        known: value
        for name, value in response.headers.items()
        if (known := _relayed_as(name)) is not None and _SANE.fullmatch(value)
    }


@lru_cache(maxsize=256)
def _relayed_as(name: str) -> str | None:
    """The name under which clients get a header; None where they do not."""
    name = name.lower()
    if name == "x-request-id":
        return "x-upstream-request-id"
    return name if _RELAYED.fullmatch(name) else None


def _sane_headers(response: Answer) -> dict[str, str]:
    """The response's headers, lower-case; those that no server may send are left out."""
    return {n.lower(): v for n, v in response.headers.items() if _SANE.fullmatch(v)}


def _file_headers(response: Answer, renamed: bool) -> dict[str, str]:
    headers = _sane_headers(response)
    kept = {name: value for name, value in headers.items() if _FILE.fullmatch(name)}
    if renamed or "content-encoding" in headers:
        # The bytes that go on are others: they have been unpacked, or get another name.
        kept.pop("content-length", None)
    return kept


async def _untouched(response: Answer) -> AsyncIterator[bytes]:
    with _translated_errors():
        async for chunk in response:
            yield chunk


class _Asked(AbstractAsyncContextManager[Relayed]):
    """One request; a class, as a generator for each costs more than the connection does."""

    def __init__(self, backend: OpenAIBackend, ask: Ask) -> None:
        self._backend = backend
        self._ask = ask
        self._response: Answer

    async def __aenter__(self) -> Relayed:
        try:
            self._response = await self._backend.post(self._ask)
        except _FAILURES as error:
            raise _translated(error) from error
        try:
            return await self._backend.answered(self._response, self._ask)
        except BaseException:
            self._response.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Gives the connection back after a whole answer, and breaks it within any other.
        self._response.close()


class _Content:
    """An answer's bytes as they come; raises BackendError when it breaks off."""

    def __init__(self, response: Answer) -> None:
        self._pieces = response
        self._is_stream = response.content_type == "text/event-stream"
        self._tail = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if self._is_stream and not _ENDED.search(self._tail):
                message = "the backend's stream ended before its answer did"
                raise BackendUnavailable(message) from None
            raise
        except _FAILURES as error:
            raise _translated(error) from error
        if self._is_stream:
            self._tail = (self._tail + piece)[-_TAIL:] if len(piece) < _TAIL else piece[-_TAIL:]
        return piece


def _whole(response: Answer) -> bytes | None:
    """The body, where it came together with its head; not a stream's, whose end tells something."""
    return None if response.content_type == "text/event-stream" else response.waiting


_FAILURES = (TimeoutError, Broken)


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise _translated(error) from error


def _translated(error: Exception) -> BackendError:
    if isinstance(error, TimeoutError):
        return BackendTimeout("the backend went silent")
    return BackendUnavailable(f"the backend could not be used: {error}")


# ---------------------------------------------------------------- errors


class _About(msgspec.Struct):
    """An error as OpenAI and its imitators write one."""

    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None
    innererror: msgspec.Raw = msgspec.Raw(b"")


class _Body(_About):
    error: _About | str | None = None


async def _error(response: Answer) -> ProxyError:
    """What to raise for an answer that is none."""
    with _translated_errors():
        said = _said(await _start_of(response))
    status = response.status
    told = {n: v for n, v in _relayed_headers(response).items() if n != "content-type"}
    if status == 408:
        return BackendTimeout("the backend answered 408")
    if status == 429:
        code = None if said.code is None else str(said.code)
        return BackendLimited("the backend answered 429: its rate limit is reached", told, code)
    if status in (401, 402, 403) or not 400 <= status < 500:
        return _unavailable(status)
    if said.code == ContextTooLong.code:
        # Not the request's fault alone: the next backend's window may be longer.
        return ContextTooLong(said.message or "the prompt is too long", said.param)
    return BackendRefused(
        said.message or f"the backend answered {status}",
        status=status,
        type=said.type or "invalid_request_error",
        code=None if said.code is None else str(said.code),
        param=said.param,
        headers=told,
        innererror=bytes(said.innererror) or None,
    )


async def _start_of(response: Answer) -> bytes:
    body = b""
    async for chunk in response:
        body += chunk
        if len(body) > _MAX_ERROR:
            break
    return body


def _unavailable(status: int) -> BackendError:
    # A cloud that rejects our key says so about us: the client's key is right, and the cloud's
    # message shows a part of ours.
    if status in (401, 402, 403):
        return BackendUnavailable(f"the backend does not accept our credentials ({status})")
    return BackendUnavailable(f"the backend answered {status}")


def _said(body: bytes) -> _About:
    try:
        said = msgspec.json.decode(body, type=_Body)
    except (ValueError, RecursionError):
        return _About()
    if isinstance(said.error, str):
        return _About(message=said.error)
    return said.error or said
