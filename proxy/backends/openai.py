"""A server that speaks OpenAI's protocol: what the client sent goes there, what it says comes back.

Bytes pass as they are, except for the model's name where it has another one there. Errors are
raised as ours: another backend may do better, or nobody can and the client is told why.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import aiohttp
import msgspec
from yarl import URL

from proxy import trace_context
from proxy.backends import plain_http
from proxy.backends.base import Ask, Forward, Relayed
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
_FILE = re.compile(r"content-(length|disposition|range)|accept-ranges|etag|last-modified")
"""Headers that say what a file is; of an answer that is no chat, these too."""
_ENDED = re.compile(rb"\[DONE\]|\"finish_reason\"\s*:\s*\"|\"error\"\s*:")
"""What the last bytes of a whole stream hold; some servers leave `[DONE]` out."""
_PLAIN = {"accept-encoding": "identity"}
"""Compressed streams come in lumps: a chunk is held back until a block is full."""
_ANSWERS = ("application/json", "text/event-stream")
_Response: TypeAlias = aiohttp.ClientResponse | plain_http.Answer
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
        self._stream_timeout = _timeout(connect_s, silence_s)
        self._whole_timeout = _timeout(connect_s, answer_s)
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self._plain = plain_http.PlainClient(connect_s, max_connections)
        self._is_closed = False

    def lacks(self, request: ChatRequest) -> str | None:
        """Nothing, as far as we know: what a server cannot serve, it says itself."""
        return None

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Relayed]:
        """Send the request on. Leaving the context cuts an answer that is still coming."""
        with _translated_errors():
            response = await self._post(ask)
        try:
            if response.status != 200:
                raise await _error(response)
            if response.content_type not in _ANSWERS:
                # A login page, or a balancer's apology.
                raise BackendUnavailable(f"the backend answered in {response.content_type}")
            renamed = ask.request.model in self._models
            headers, content = _relayed_headers(response), _content(response)
            yield Relayed(response.status, headers, content, renamed, self._counts(ask))
        finally:
            # Gives the connection back after a whole answer, and breaks it within any other.
            response.close()

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
        self._plain.close()
        if self._session is not None:
            await self._session.close()

    async def _post(self, ask: Ask) -> _Response:
        url, body = self._place("/chat/completions", ask.request.model), self._body(ask)
        headers = {"content-type": "application/json", **_PLAIN, **await self._credentials()}
        timeout = self._stream_timeout if ask.request.stream else self._whole_timeout
        self._check_open()
        if url.startswith("http://"):
            headers.update(trace_context.outgoing())
            return await self._plain.post(url, body, headers, timeout.sock_read)
        return await self._open_session().post(
            URL(url, encoded=True),
            data=body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
        )

    def _body(self, ask: Ask) -> bytes:
        body = _renamed(ask.body, self._models.get(ask.request.model))
        return _with_usage(body) if self._counts(ask) else body

    def _counts(self, ask: Ask) -> bool:
        """Whether we ask for a usage that the client did not ask for."""
        is_wanted = self._count_usage or ask.counted
        return is_wanted and bool(ask.request.stream) and not ask.request.wants_usage

    async def _forward(self, forward: Forward) -> aiohttp.ClientResponse:
        body = forward.body
        if isinstance(body, bytes) and forward.model is not None:
            body = _renamed(body, self._models.get(forward.model))
        return await self._open_session().request(
            forward.method,
            # Encoded already: decoding and encoding it anew could make another path of it.
            URL(self._place(forward.target, forward.model), encoded=True),
            data=body,
            headers={**forward.headers, **_PLAIN, **await self._credentials()},
            timeout=self._whole_timeout,
            allow_redirects=False,
            skip_auto_headers=("content-type", "user-agent"),
        )

    def _place(self, target: str, model: str | None) -> str:
        """The URL, percent-encoded, of a path below the API's root; `model` as the client says."""
        return self._url + target

    async def _credentials(self) -> dict[str, str]:
        """The headers that say who we are; raises BackendUnavailable."""
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def _check_open(self) -> None:
        if self._is_closed:
            raise BackendUnavailable(f"the backend {self.name!r} has been closed")

    def _open_session(self) -> aiohttp.ClientSession:
        # Made at the first request, since it binds to the loop that runs then.
        self._check_open()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                trace_configs=[trace_context.carrying()],
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _timeout(connect_s: float, silence_s: float) -> aiohttp.ClientTimeout:
    # aiohttp gives up on the whole exchange after 300 s unless told otherwise; a long answer is not
    # an error, a silent backend is. `connect` also counts the wait for a connection to be free.
    return aiohttp.ClientTimeout(
        total=None, connect=2 * connect_s, sock_connect=connect_s, sock_read=silence_s
    )


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


def _relayed_headers(response: _Response) -> dict[str, str]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    relayed = {name: value for name, value in headers.items() if _RELAYED.fullmatch(name)}
    if "x-request-id" in headers:
        relayed["x-upstream-request-id"] = headers["x-request-id"]
    return relayed


def _file_headers(response: aiohttp.ClientResponse, renamed: bool) -> dict[str, str]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    kept = {name: value for name, value in headers.items() if _FILE.fullmatch(name)}
    if renamed or "content-encoding" in headers:
        # The bytes that go on are others: aiohttp has unpacked them, or they get another name.
        kept.pop("content-length", None)
    return kept


async def _untouched(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with _translated_errors():
        async for chunk in response.content.iter_any():
            yield chunk


async def _content(response: _Response) -> AsyncIterator[bytes]:
    """The answer's bytes as they come; raises BackendError when it breaks off."""
    tail = b""
    with _translated_errors():
        async for chunk in response.content.iter_any():
            tail = (tail + chunk)[-_TAIL:]
            yield chunk
    if response.content_type == "text/event-stream" and not _ENDED.search(tail):
        raise BackendUnavailable("the backend's stream ended before its answer did")


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise BackendTimeout("the backend went silent") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        # Its text may hold the URL and header values; its type says enough.
        message = f"the backend could not be used: {type(error).__name__}"
        raise BackendUnavailable(message) from error


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


async def _error(response: _Response) -> ProxyError:
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


async def _start_of(response: _Response) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
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
