"""uvicorn as we run it: bound before anything heavy is loaded, stopped without losing a request."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import BadConfig, BadRequest, CannotStart, PortInUse
from proxy.middleware import error_body, new_request_id

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEEP_ALIVE_S = 75
"""Longer than the 60 s of common load balancers, which must be the ones to close first."""


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
    """uvicorn's, but that it speaks as OpenAI does of what is no HTTP, and gives it an id too."""

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
