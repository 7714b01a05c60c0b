"""Requests to an engine over HTTP, and server-sent events back; errors become ours.

Nothing that a server says is trusted to be small: error bodies, events and whole answers are read
up to a bound.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import msgspec

from proxy import sse, trace_context
from proxy.errors import BackendError, BackendUnavailable, ConnectTimeout, ProxyError, StallTimeout

MAX_ERROR = 64 * 1024
"""Bytes of an error that are read."""
MAX_EVENT = 1024 * 1024
"""Bytes of one event: far above any token with its alternatives."""
MAX_WHOLE = 8 * 1024 * 1024
"""Bytes of an answer in one piece."""
_GLANCE = aiohttp.ClientTimeout(total=5)
"""For questions that cost the server nothing, such as its health."""

Judge = Callable[[int, str, bytes], ProxyError]
"""What an answer that is none means: status, content type, the beginning of the body."""


def session(connect_s: float, api_key: str | None = None) -> aiohttp.ClientSession:
    """A session for engines, to be closed by whoever asked for it; needs a running loop.

    Only the connection is timed here: whoever reads an answer knows how long it may take.
    """
    headers = {"accept-encoding": "identity"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return aiohttp.ClientSession(
        # Slots are counted before a request gets here; a second queue would only hide the first.
        # vLLM's server closes connections that idle for 5 s: reusing one just then would fail.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        trace_configs=[trace_context.carrying()],
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
    )


@asynccontextmanager
async def post(
    session: aiohttp.ClientSession, url: str, body: object, judge: Judge
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response to a JSON body, status 200; leaving cuts what is still coming.

    Raises what `judge` makes of any other status.
    """
    with translated():
        response = await session.post(
            url,
            data=msgspec.json.encode(body),
            headers={"content-type": "application/json"},
            allow_redirects=False,
        )
    try:
        if response.status != 200:
            said = await read(response, MAX_ERROR)
            raise judge(response.status, response.content_type, said)
        yield response
    finally:
        response.close()


async def get(session: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
    """Status and body of a cheap question; raises BackendError when there is no answer."""
    with translated():
        async with session.get(url, timeout=_GLANCE, allow_redirects=False) as response:
            return response.status, await read(response, MAX_WHOLE)


async def is_well(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether a server's `/health` says so; False too when it says nothing."""
    try:
        status, _ = await get(session, f"{url}/health")
    except BackendError:
        return False
    return status == 200


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The data of each event, up to `[DONE]` or the stream's end."""
    decoder = sse.EventDecoder(MAX_EVENT)
    with translated():
        async for chunk in response.content.iter_any():
            for event in _decoded(decoder, chunk):
                if event.strip() == sse.DONE:
                    return
                yield event


async def contents(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The JSON texts of an answer: its events, or the whole where it came in one piece."""
    if response.content_type == "text/event-stream":
        async for event in events(response):
            yield event
    else:
        yield await read(response, MAX_WHOLE)


async def read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or its first `most` bytes."""
    body = b""
    with translated():
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > most:
                break
    return body[:most]


@contextmanager
def translated() -> Iterator[None]:
    """The library's errors as ours. Their texts may hold URLs, so that only their kind is told."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
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
        return decoder.feed(chunk)
    except sse.EventTooLarge as error:
        raise BackendUnavailable(str(error)) from error
