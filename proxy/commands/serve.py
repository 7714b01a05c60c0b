"""headrace serve: answer requests until stopped."""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop

from proxy import config, heap, logs, workers
from proxy.asgi import proxies
from proxy.auth import is_loopback
from proxy.commands.shared import Commands, add_with_config
from proxy.config import Config
from proxy.errors import BadConfig, CannotStart
from proxy.protocol.command_line import whole_number
from proxy.server import Server, address, bind
from proxy.siblings import Place, Siblings
from proxy.welcome import welcome

_COLLECT_AFTER = 20_000
"""Objects that are made, and not freed, until the collector looks for cycles: some 10 MiB of them.
Chosen: at Python's 700 it looks at every second request, and finds next to nothing."""


def add(commands: Commands) -> None:
    """Add `serve` to a command line."""
    parser = add_with_config(commands, "serve", _serve, "answer requests until stopped")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=whole_number(0, 65535), default=8080, help="port, 0 for any (%(default)s)")
    add(
        "--workers",
        type=whole_number(1, 256),
        default=1,
        help="processes that share the port (%(default)s)",
    )
    add("--log-level", choices=logs.LEVELS, default="info")


def _serve(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    _check_exposure(options.host, settings)
    place = Place.found()
    if place is not None:
        with socket.socket(fileno=place.listening) as bound:
            return _work(options, bound, place)
    with bind(options.host, options.port) as bound:
        if options.workers > 1:
            return workers.run(options.workers, bound, sys.argv[1:])
        return _work(options, bound, None)


def _work(options: argparse.Namespace, bound: socket.socket, place: Place | None) -> int:
    """Answer what comes in through a socket, as one of several workers or alone."""
    gc.set_threshold(_COLLECT_AFTER)
    heap.share()
    logs.configure(options.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_until_stopped(options.config, options.host, bound, place))
        except ExceptionGroup as group:
            raise _cause(group) from group
    return 0


def _cause(group: ExceptionGroup) -> CannotStart:
    """Why a group of tasks ended, as one error: the refusal to start, if one is among them."""
    first: BaseException = group.subgroup(CannotStart) or group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, CannotStart) else CannotStart(f"stopped by {first!r}")


async def _until_stopped(path: Path, host: str, bound: socket.socket, place: Place | None) -> None:
    siblings = None if place is None else Siblings(place)
    settings = config.load(path)
    async with AsyncExitStack() as stack:
        found = proxies(path, partial(_check_exposure, host), siblings)
        live = await stack.enter_async_context(found)
        if siblings is not None:
            await stack.enter_async_context(siblings.telling())
        # What start-up made stays; without this the collector walks over it again and again. It is
        # not looked through for garbage, of which there is little: that took a tenth of the start.
        gc.freeze()
        heap.trim()
        server = Server(
            live,
            grace_s=settings.limits.grace_s,
            on_ready=lambda: _announce(settings, bound, place),
            on_stop=live.begin_draining,
            on_hangup=live.want,
        )
        await server.serve(sockets=[bound])


def _announce(settings: Config, bound: socket.socket, place: Place | None) -> None:
    if place is not None and place.number > 0:
        return
    has_keys = not settings.auth.is_open
    print(welcome(address(bound), settings.models, has_keys), flush=True)


def _check_exposure(host: str, settings: Config) -> None:
    if settings.auth.is_open and not is_loopback(host):
        raise BadConfig(
            f"{host} can be reached from other machines, and no key is needed to get in; add one"
            " under auth.keys in routes.yaml, or listen on --host 127.0.0.1"
        )
