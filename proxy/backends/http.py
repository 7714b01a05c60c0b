"""Requests to an engine over HTTP, and server-sent events back; errors become ours.

Nothing that a server says is trusted to be small: error bodies, events and whole answers are read
up to a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import msgspec

from proxy import sse, trace_context
from proxy.backends.client import Answer, Client
from proxy.backends.plain_http import Broken, ConnectTimedOut
from proxy.errors import BackendError, BackendUnavailable, ConnectTimeout, ProxyError, StallTimeout

MAX_ERROR = 64 * 1024
"""Bytes of an error that are read."""
MAX_EVENT = 1024 * 1024
"""Bytes of one event: far above any token with its alternatives."""
MAX_WHOLE = 8 * 1024 * 1024
"""Bytes of an answer in one piece."""
_UNBOUNDED = 1_000_000
_GLANCE_S = 5.0
"""Seconds for questions that cost the server nothing, such as its health."""

Judge = Callable[[int, str, bytes], ProxyError]
"""What an answer that is none means: status, content type, the beginning of the body."""


class Session:
    """The way to the servers of one pool, with their key. To be closed by whoever made it."""

    def __init__(
        self, connect_s: float, api_key: str | None = None, *, for_tls: bool = False
    ) -> None:
        """Only the connection is timed: whoever reads an answer knows how long it may take.
        `for_tls`: see Client."""
        self._headers = {"accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        # Slots are counted before a request gets here; a second queue would only hide the first.
        self._client = Client(connect_s, _UNBOUNDED, for_tls=for_tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def post(self, url: str, body: bytes) -> Answer:
        """The response to a JSON body, as soon as its head is there; close it in any case."""
        sent = {**self._headers, "content-type": "application/json", **trace_context.outgoing()}
        return await self._client.request("POST", url, body, sent, None)

    async def get(self, url: str) -> tuple[int, bytes]:
        """Status and body of a cheap question."""
        sent = {**self._headers, **trace_context.outgoing()}
        async with asyncio.timeout(_GLANCE_S):
            response = await self._client.request("GET", url, None, sent, None)
            try:
                return response.status, await read(response, MAX_WHOLE)
            finally:
                response.close()


@asynccontextmanager
async def post(session: Session, url: str, body: object, judge: Judge) -> AsyncIterator[Answer]:
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


async def events(response: Answer) -> AsyncIterator[list[bytes]]:
    """The data of each event, up to `[DONE]` or the stream's end; of those that came together,
    together."""
    decoder = sse.EventDecoder(MAX_EVENT)
    with translated():
        async for chunk in response:
            given = _decoded(decoder, chunk)
            if sse.DONE in given:
                yield given[: given.index(sse.DONE)]
                return
            if given:
                yield given


async def contents(response: Answer) -> AsyncIterator[list[bytes]]:
    """The JSON texts of an answer: its events, or the whole where it came in one piece."""
    if response.content_type == "text/event-stream":
        async for given in events(response):
            yield given
    else:
        yield [await read(response, MAX_WHOLE)]


async def read(response: Answer, most: int) -> bytes:
    """The body, or its first `most` bytes."""
    body = bytearray()
    with translated():
        async for chunk in response:
            body += chunk
            if len(body) > most:
                break
    return bytes(body[:most])


@contextmanager
def translated() -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except ConnectTimedOut as error:
        raise ConnectTimeout("no connection to the engine stood in time") from error
    except TimeoutError as error:
        raise StallTimeout("the engine went silent") from error
    except Broken as error:
        raise BackendUnavailable(f"the engine could not be used: {error}") from error


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
