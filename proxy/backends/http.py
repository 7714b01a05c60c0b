"""Requests to an engine over HTTP, and server-sent events back; errors become ours.

Nothing that a server says is trusted to be small: error bodies, events and whole answers are read
up to a bound.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Self, TypeAlias

import aiohttp
import msgspec

from proxy import sse, trace_context
from proxy.backends.plain_http import KEPT_S, Answer, ConnectTimedOut, PlainClient
from proxy.errors import BackendError, BackendUnavailable, ConnectTimeout, ProxyError, StallTimeout

MAX_ERROR = 64 * 1024
"""Bytes of an error that are read."""
MAX_EVENT = 1024 * 1024
"""Bytes of one event: far above any token with its alternatives."""
MAX_WHOLE = 8 * 1024 * 1024
"""Bytes of an answer in one piece."""
_UNBOUNDED = 1_000_000
_GLANCE = aiohttp.ClientTimeout(total=5)
"""For questions that cost the server nothing, such as its health."""

Judge = Callable[[int, str, bytes], ProxyError]
"""What an answer that is none means: status, content type, the beginning of the body."""


Response: TypeAlias = aiohttp.ClientResponse | Answer


class Session:
    """The way to engines: lean where they speak plain HTTP, a full client's where they do not.

    To be closed by whoever made it; needs a running loop.
    """

    def __init__(self, connect_s: float, api_key: str | None = None) -> None:
        """Only the connection is timed: whoever reads an answer knows how long it may take."""
        self._headers = {"accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        # Slots are counted before a request gets here; a second queue would only hide the first.
        self._plain = PlainClient(connect_s, _UNBOUNDED)
        self._full = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            trace_configs=[trace_context.carrying()],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        self._plain.close()
        await self._full.close()

    async def post(self, url: str, body: bytes) -> Response:
        """The response to a JSON body, as soon as its head is there; close it in any case."""
        headers = {"content-type": "application/json"}
        if url.startswith("http://"):
            sent = {**self._headers, **headers, **trace_context.outgoing()}
            return await self._plain.post(url, body, sent, None)
        return await self._full.post(url, data=body, headers=headers, allow_redirects=False)

    async def get(self, url: str) -> tuple[int, bytes]:
        """Status and body of a cheap question."""
        async with self._full.get(url, timeout=_GLANCE, allow_redirects=False) as response:
            return response.status, await read(response, MAX_WHOLE)


@asynccontextmanager
async def post(session: Session, url: str, body: object, judge: Judge) -> AsyncIterator[Response]:
    """The response to a JSON body, status 200; leaving cuts what is still coming.

    Raises what `judge` makes of any other status.
    """
    with translated():
        response = await session.post(url, msgspec.json.encode(body))
    try:
        if response.status != 200:
            said = await read(response, MAX_ERROR)
            raise judge(response.status, response.content_type, said)
        yield response
    finally:
        response.close()


async def get(session: Session, url: str) -> tuple[int, bytes]:
    """Status and body of a cheap question; raises BackendError when there is no answer."""
    with translated():
        return await session.get(url)


async def is_well(session: Session, url: str) -> bool:
    """Whether a server's `/health` says so; False too when it says nothing."""
    try:
        status, _ = await get(session, f"{url}/health")
    except BackendError:
        return False
    return status == 200


async def events(response: Response) -> AsyncIterator[list[bytes]]:
    """The data of each event, up to `[DONE]` or the stream's end; of those that came together,
    together."""
    decoder = sse.EventDecoder(MAX_EVENT)
    with translated():
        async for chunk in response.content.iter_any():
            given = _decoded(decoder, chunk)
            if sse.DONE in given:
                yield given[: given.index(sse.DONE)]
                return
            if given:
                yield given


async def contents(response: Response) -> AsyncIterator[list[bytes]]:
    """The JSON texts of an answer: its events, or the whole where it came in one piece."""
    if response.content_type == "text/event-stream":
        async for given in events(response):
            yield given
    else:
        yield [await read(response, MAX_WHOLE)]


async def read(response: Response, most: int) -> bytes:
    """The body, or its first `most` bytes."""
    body = bytearray()
    with translated():
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > most:
                break
    return bytes(body[:most])


@contextmanager
def translated() -> Iterator[None]:
    """The library's errors as ours. Their texts may hold URLs, so that only their kind is told."""
    try:
        yield
    except (aiohttp.ConnectionTimeoutError, ConnectTimedOut) as error:
        raise ConnectTimeout("no connection to the engine stood in time") from error
    except TimeoutError as error:
        raise StallTimeout("the engine went silent") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        message = f"the engine could not be used: {type(error).__name__}"
        raise BackendUnavailable(message) from error


def said_as(body: bytes) -> Mapping[str, object]:
    """The JSON object in a body; {} where there is none."""
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (ValueError, RecursionError):
        return {}


def _decoded(decoder: sse.EventDecoder, chunk: bytes) -> list[bytes]:
    try:
        return [event.strip() for event in decoder.feed(chunk)]
    except sse.EventTooLarge as error:
        raise BackendUnavailable(str(error)) from error
