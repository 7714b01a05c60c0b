"""A network that fails as it is told: a TCP relay between two that talk HTTP.

async with relay(port) as net:
    net.fault = RESET
    … talk to net.port …
    net.fault = None
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

Change = Callable[[bytes], bytes]


class Fault(NamedTuple):
    """What happens to the bytes of one direction of a connection."""

    name: str
    delay_s: float = 0.0
    """Before each piece."""
    jitter_s: float = 0.0
    """More delay, up to this, by chance."""
    piece: int = 65536
    """Bytes that are passed on at once."""
    after: int | None = None
    """Bytes after which `then` happens; None: never."""
    then: str = ""
    """`reset`, `close`, `hang` (nothing comes any more), `stall` (nothing for a while)."""
    change: Change = bytes
    """What becomes of each piece."""
    of: str = "answer"
    """Which direction: `answer` or `request`."""
    refuses: bool = False
    """New connections are reset."""


STALL_S = 0.6
"""How long a stall lasts: less than the proxy's patience, as a retransmission is."""


@dataclass
class Relay:
    """Both directions of every connection, and what is wrong with them now."""

    upstream: int
    seed: int
    port: int = 0
    fault: Fault | None = None
    chance: random.Random = field(init=False)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        fault = self.fault
        if fault is not None and fault.refuses:
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            _reset(writer)
            return
        for of, source, target in (
            ("request", reader, up_writer),
            ("answer", up_reader, writer),
        ):
            task = asyncio.ensure_future(self._pass(of, source, target, (writer, up_writer)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _pass(
        self,
        of: str,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        passed, has_happened = 0, False
        with suppress(ConnectionError):
            while content := await source.read(65536):
                while content:
                    fault = self.fault
                    if fault is None or fault.of != of:
                        target.write(content)
                        await target.drain()
                        break
                    piece, content = content[: fault.piece], content[fault.piece :]
                    if fault.after is not None and not has_happened:
                        room = fault.after - passed
                        if room <= len(piece):
                            has_happened = True
                            target.write(fault.change(piece[:room]))
                            piece = piece[room:]
                            if not await self._happens(fault, both):
                                return
                    wait = fault.delay_s + self.chance.random() * fault.jitter_s
                    if wait:
                        await asyncio.sleep(wait)
                    passed += len(piece)
                    target.write(fault.change(piece))
                    await target.drain()
        with suppress(OSError, RuntimeError):
            target.close()

    async def _happens(
        self, fault: Fault, both: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> bool:
        """Whether more is passed on after it."""
        match fault.then:
            case "reset":
                for writer in both:
                    _reset(writer)
                return False
            case "close":
                for writer in both:
                    writer.close()
                return False
            case "hang":
                while self.fault is fault:  # noqa: ASYNC110  # a field that tests set
                    await asyncio.sleep(0.05)
                for writer in both:
                    _reset(writer)
                return False
            case _:
                await asyncio.sleep(STALL_S)
                return True


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        # Unsent bytes are thrown away, and the other side sees a reset.
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def relay(upstream: int, seed: int = 0) -> AsyncIterator[Relay]:
    """A relay to a port of this machine."""
    net = Relay(upstream, seed)
    server = await asyncio.start_server(net.serve, "127.0.0.1", 0)
    net.port = server.sockets[0].getsockname()[1]
    try:
        yield net
    finally:
        server.close()
        for task in list(net.tasks):
            task.cancel()
        await asyncio.gather(*net.tasks, return_exceptions=True)
