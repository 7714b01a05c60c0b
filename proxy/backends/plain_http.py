"""Plain HTTP/1.1, on connections that are kept: the way to engines in the same network.

A fraction of a full client's work for each request: no TLS, no proxies, no redirects, no cookies,
no compression, no uploads piece by piece. Source: RFC 9110 and 9112; llhttp (by httptools) reads.

What a server says is bounded and distrusted. A connection is used again only when its answer ended
where it said that it would, nothing came after it, and all that we wrote is out. A request is sent
once: a connection that breaks after the first byte is an error, for the caller to judge. Only what
may be asked twice, such as a GET, is, where a connection that was kept turns out to be closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

import httptools

KEPT_S = 4.0
"""Seconds for which an idle connection is kept. vLLM's server closes them after 5: one that is used
again just then would fail."""
MAX_HEAD = 64 * 1024
"""Bytes of status and headers that are read, interim answers included."""
_ENOUGH = 256 * 1024
"""Bytes that wait to be read until the server is told to pause."""
_AT_ONCE = 64 * 1024
"""A body up to this size goes out together with its head, in one write."""
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that may be sent again when nobody knows whether they arrived (RFC 9110, 9.2.2)."""
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
"""Methods that do not say of an absent body that it has no bytes (RFC 9110, 8.6)."""


class Broken(ConnectionError):
    """The server does not speak HTTP as we do, or broke off."""


class ConnectTimedOut(TimeoutError):
    """No connection stood in time, or none was free."""


class _Place(NamedTuple):
    """Where a URL leads."""

    host: str
    port: int
    start: bytes
    """Of the request: its first line, and the host."""


class Answer:
    """An answer that is still coming. Its reader waits for it; its connection feeds it."""

    def __init__(self, connection: _Connection, silence_s: float | None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Lower-case names; of a name that occurs twice, the values with a comma between."""
        self._connection: _Connection | None = connection
        self._silence_s = silence_s
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_over = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        """Without its parameters; what the standard assumes where it is missing."""
        return _without_parameters(self.headers.get("content-type", "application/octet-stream"))

    @property
    def waiting(self) -> bytes | None:
        """All of the body that was not read yet; None while more may come."""
        return b"".join(self._pieces) if self._is_over else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The body as it comes, what has come together in one piece; raises TimeoutError after
        silence, and Broken."""
        while not self._pieces:
            if self._is_over:
                raise StopAsyncIteration
            await self.heard()
        return self._taken()

    async def heard(self) -> None:
        """Wait for the head or, after it, for more of the body or its end."""
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if self._silence_s is None else loop.call_later(self._silence_s, _late, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Break the connection if the answer is not over; else it has been given back already."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _taken(self) -> bytes:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._connection is not None:
            self._connection.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # ------------------------------------------------------------ for its connection

    def began(self, status: int, headers: dict[str, str]) -> None:
        """The head is there."""
        self.status, self.headers = status, headers
        self._wake(None)

    def add(self, piece: bytes) -> bool:
        """A piece of the body; whether that is enough for now."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake(None)
        return self._size > _ENOUGH

    def end(self, error: Exception | None) -> None:
        """Nothing more comes, and the connection is another's."""
        self._is_over, self._error, self._connection = error is None, error, None
        self._wake(error)

    def _wake(self, error: Exception | None) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


class _Connection(asyncio.Protocol):
    """One connection: an answer at a time."""

    def __init__(self, idle: deque[_Connection], freed: Callable[[], None]) -> None:
        """`freed` is told each time that an answer is over, or given up."""
        self.is_usable = True
        self.was_kept = False
        """Whether it has answered before."""
        self._freed = freed
        self._idle = idle
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._parser: httptools.HttpResponseParser
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._has_head = False
        self._ends_by_closing = False
        self._asks_head = False
        self._is_paused = False
        self._expiry: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ one request

    def send(
        self, head: bytes, body: bytes, silence_s: float | None, *, asks_head: bool = False
    ) -> Answer:
        """Send a request; its answer, of which nothing is there yet. `asks_head`: whatever its
        head says, no body follows."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._head_size, self._has_head = {}, 0, False
        self._asks_head = asks_head
        self._answer = answer = Answer(self, silence_s)
        if len(body) <= _AT_ONCE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return answer

    def abort(self) -> None:
        """Nobody wants the rest."""
        self.is_usable = False
        self._let_go()
        self._transport.abort()

    def resume(self) -> None:
        """There is room again."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _let_go(self) -> Answer | None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self._freed()
        return answer

    def _done(self, error: Exception | None, can_stay: bool) -> None:
        answer = self._let_go()
        if answer is not None:
            answer.end(error)
        if can_stay and not self._transport.get_write_buffer_size():
            self.resume()
            self._expiry = asyncio.get_running_loop().call_later(KEPT_S, self.abort)
            self._idle.append(self)
            self.was_kept = True
        else:
            self.abort()

    # ------------------------------------------------------------ what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, received: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody asked: whatever it is, it must not be the next request's answer.
            self.abort()
            return
        if not self._has_head:
            self._head_size += len(received)
        try:
            self._parser.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            broken = Broken("the answer is not HTTP as it should be")
            self._done(broken, can_stay=False)
            # It may have ended before: then what came too much says that it did not end there.
            answer.end(broken)
        else:
            if not self._has_head and self._head_size > MAX_HEAD:
                self._done(Broken("the head of the answer is too large"), can_stay=False)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_usable = False
        if self._expiry is not None:
            self._expiry.cancel()
        is_whole = self._has_head and self._ends_by_closing and error is None
        answer = self._let_go()
        if answer is not None:
            answer.end(None if is_whole else Broken("the connection broke within the answer"))

    # ------------------------------------------------------------ what the parser says

    def on_message_begin(self) -> None:
        if self._answer is None:
            # A second answer in the same bytes: nobody asked for it.
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # trailers, which nobody reads
        key, said = name.decode("latin-1").lower(), value.decode("latin-1")
        former = self._headers.get(key)
        self._headers[key] = said if former is None else f"{former}, {said}"

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        if status < 200:
            self._headers = {}
            return
        if self._head_size > MAX_HEAD and sum(map(len, headers.values())) > MAX_HEAD:
            self._done(Broken("the head of the answer is too large"), can_stay=False)
            return
        if headers.get("content-encoding", "identity") != "identity":
            self._done(Broken("the answer is compressed, which nobody asked for"), can_stay=False)
            return
        self._has_head = True
        self._ends_by_closing = (
            "content-length" not in headers and "transfer-encoding" not in headers
        )
        if self._answer is not None:
            self._answer.began(status, headers)
        if self._asks_head:
            # The parser waits for a body that does not come.
            self._done(None, can_stay=False)

    def on_body(self, piece: bytes) -> None:
        if self._answer is not None and self._answer.add(piece) and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._has_head and self._answer is not None:
            self._done(None, can_stay=self._parser.should_keep_alive())


class PlainClient:
    """Connections to any number of servers. Made once; needs a running loop when it is used."""

    def __init__(self, connect_s: float, max_connections: int) -> None:
        """`connect_s`: seconds for a connection to stand, and again for one to be free."""
        self._connect_s = connect_s
        self._free = asyncio.Semaphore(max_connections)
        self._idle: dict[tuple[str, int], deque[_Connection]] = {}

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        silence_s: float | None,
    ) -> Answer:
        """The answer to a request, as soon as its head is there; close it in any case.

        `url` is percent-encoded; `silence_s` bounds each wait, for the head and between pieces.
        Raises ConnectTimedOut and other TimeoutErrors, and Broken.
        """
        place = _place(method, url)
        if body is None and method not in _WITHOUT_BODY:
            body = b""
        connection = await self._connection(place)
        may_repeat = connection.was_kept and method in _IDEMPOTENT
        answer = connection.send(
            _head(place, headers, body), body or b"", silence_s, asks_head=method == "HEAD"
        )
        try:
            await answer.heard()
        except BaseException as error:
            answer.close()
            if may_repeat and isinstance(error, Broken):
                # The server closed what it had kept, just then; so it will have with the others.
                self._forget(place)
                return await self.request(method, url, body, headers, silence_s)
            raise
        return answer

    def close(self) -> None:
        """Close what is idle; what is in use closes with its answer."""
        for idle in self._idle.values():
            _abort(idle)

    def _forget(self, place: _Place) -> None:
        _abort(self._idle[place.host, place.port])

    async def _connection(self, place: _Place) -> _Connection:
        await self._room()
        idle = self._idle.setdefault((place.host, place.port), deque())
        while idle:
            # The one that rested shortest: the others may be closed in peace.
            connection = idle.pop()
            if connection.is_usable:
                return connection
        try:
            return await self._opened(place, idle)
        except BaseException:
            self._free.release()
            raise

    async def _room(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        with _timed_out():
            async with asyncio.timeout(self._connect_s):
                await self._free.acquire()

    async def _opened(self, place: _Place, idle: deque[_Connection]) -> _Connection:
        loop = asyncio.get_running_loop()
        with _timed_out():
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(idle, self._free.release), place.host, place.port
                )
        return connection


@contextmanager
def _timed_out() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise ConnectTimedOut("no connection stood in time") from error
    except (OSError, UnicodeError) as error:
        # UnicodeError: of a name that can be no host's.
        raise Broken(f"no connection: {type(error).__name__}") from error


@lru_cache(maxsize=64)
def _without_parameters(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _abort(idle: deque[_Connection]) -> None:
    for connection in idle:
        connection.abort()
    idle.clear()


@lru_cache(maxsize=1024)
def _place(method: str, url: str) -> _Place:
    parsed = urlsplit(url)
    host = parsed.hostname or ""
    named = f"[{host}]" if ":" in host else host
    try:
        port = parsed.port or 80
        shown = named if port == 80 else f"{named}:{port}"
        target = (parsed.path or "/") + (f"?{parsed.query}" if parsed.query else "")
        start = f"{method} {target} HTTP/1.1\r\nhost: {shown}\r\n".encode("ascii")
    except ValueError as error:
        raise Broken(f"no URL that can be asked: {type(error).__name__}") from error
    return _Place(host, port, start)


def _head(place: _Place, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}\r\n")
    return place.start + f"{''.join(lines)}\r\n".encode("latin-1")


def _late(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("the server went silent"))
