"""uvicorn as we run it: bound before anything heavy is loaded, stopped without losing a request."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import BadConfig, BadRequest, CannotStart, PortInUse
from proxy.middleware import error_body, new_request_id

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MAX_HEAD = 64 * 1024
"""Bytes of a request's head, its line and all of its headers. The parser has no bound of its own.
Chosen: common load balancers let through no more."""
_KEEP_ALIVE_S = 75
"""Seconds that a connection may be idle, and in which a request's head must be whole. Longer than
the 60 s of common load balancers, which must be the ones to close first."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not listen yet, so that nobody connects too early.

    Raises PortInUse, or BadConfig for an address that is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, since asyncio switches Nagle's algorithm off only where the protocol says TCP: else the
    # body of an answer waits 40 ms for the client to acknowledge the head.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Else the port stays taken for a minute after a restart, by connections long closed.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _not_bound(host, port, error) from error
    return bound


def address(bound: socket.socket) -> str:
    """Host and port of a socket, as in a URL."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server(uvicorn.Server):
    """Serves an app until a signal comes; then finishes what is in flight and returns."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_s: float,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
        on_hangup: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ready` is called when connections are taken, `on_stop` when no more will be, and
        `on_hangup` for SIGHUP."""
        super().__init__(_settings(app, grace_s))
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_hangup = on_hangup

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again when the server has stopped, which would kill the
        # process before the record is flushed.
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for number in (*_SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(number)


class _Protocol(HttpToolsProtocol):
    """uvicorn's, but that a request's head has bounds in size and time, and that it speaks as
    OpenAI does of what is no HTTP, and gives it an id too."""

    _unread = 0
    """Bytes since the parser last gave us something: of a head, or of what follows a body."""
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("the parser stopped")
        if self._unread > _MAX_HEAD and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                self._stay_with_http()

    def _stay_with_http(self) -> None:
        """Read a request that asks for another protocol as one that does not.

        So RFC 9110, 7.8, lets us; Java's client asks for HTTP/2 with each. The parser leaves its
        body unread, which would then be taken for the next request on the connection.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise httptools.HttpParserError("what follows would be no HTTP")
        head = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        head += [b"%s: %s" % header for header in self.headers if header[0] != b"connection"]
        kept = b"keep-alive" if self.parser.should_keep_alive() else b"close"
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join([*head, b"connection: " + kept, b"\r\n"]))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._unread = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def _await_head(self) -> None:
        if self._head_timer is None:
            wait = self.loop.call_later(_KEEP_ALIVE_S, self.timeout_keep_alive_handler)
            self._head_timer = wait

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response("the head is too large")
        else:
            # What follows a body; an answer to that body may be under way.
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        content = error_body(BadRequest("the request is not valid HTTP"))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(content)}\r\nx-request-id: {new_request_id()}\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()


def _settings(app: ASGIApp, grace_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whose address a request came from decides nothing here.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )


def _not_bound(host: str, port: int, error: OSError) -> CannotStart:
    match error.errno:
        case errno.EADDRINUSE:
            return PortInUse(
                f"{host}:{port} is in use; stop what listens there, or choose another with --port"
            )
        case errno.EACCES:
            return BadConfig(f"{host}:{port} needs privileges; choose a --port above 1023")
        case _:
            return BadConfig(f"cannot listen on {host}:{port} ({error.strerror}); see --host")
