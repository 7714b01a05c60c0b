"""Load: wrk for as much as goes through, a program of ours for a constant rate.

wrk keeps N connections busy, each waiting for its answer. At a constant rate each request is timed
from the moment at which it was due: a gateway that stalls is not asked less.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple, cast

import msgspec

from bench.gateways.processes import OTHER_CORE

PATH = "/v1/chat/completions"
_SCRIPT = """
wrk.method = "POST"
wrk.path = "%s"
wrk.headers["content-type"] = "application/json"
local count, directory, requests, at = %d, "%s", {}, 0
function init(arguments)
  for number = 0, count - 1 do
    local file = io.open(directory .. "/body-" .. number .. ".json", "rb")
    requests[number + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end
function request()
  at = at %% count + 1
  return requests[at]
end
"""
"""Requests are made before the load begins. Their files are closed: they take numbers that wrk's
sockets need."""


class Through(NamedTuple):
    """What went through in a time."""

    requests: int
    seconds: float
    errors: int
    """Answers that were no 200, and broken connections."""


class Waits(msgspec.Struct):
    """Milliseconds at a constant rate."""

    first_ms: list[float]
    """Until the answer's first byte of its body."""
    total_ms: list[float]
    errors: int = 0


def request(port: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP request."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n{more}\r\n".encode() + body


def wrk(
    port: int,
    bodies: Sequence[bytes],
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: float,
    directory: Path,
) -> Through:
    """As much as goes through over so many connections, with each of the bodies in turn."""
    script = directory / f"load-{port}.lua"
    for number, body in enumerate(bodies):
        (directory / f"body-{number}.json").write_bytes(body)
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script.write_text("\n".join([*lines, _SCRIPT % (PATH, len(bodies), directory)]))
    command = ["taskset", "-c", str(OTHER_CORE), "wrk", "-t1", f"-c{connections}"]
    timing = [f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    told = subprocess.run(
        [*command, *timing, "-s", str(script), f"http://127.0.0.1:{port}{PATH}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return _read(told)


def _read(told: str) -> Through:
    done = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", told)
    if done is None:
        raise RuntimeError(f"wrk said: {told}")
    unit = {"ms": 0.001, "s": 1.0, "m": 60.0}[done[3]]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    errors = int(refused[1]) if refused else 0
    errors += sum(map(int, broken.groups())) if broken else 0
    return Through(int(done[1]), float(done[2]) * unit, errors)


class _Client(asyncio.Protocol):
    """One request over one connection that is kept for the next."""

    def __init__(self) -> None:
        self._first_at = 0.0
        self._received = b""
        self._done: asyncio.Future[tuple[float, float]]
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> asyncio.Future[tuple[float, float]]:
        self._received, self._first_at = b"", 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, received: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self._received += received
        head, _, body = self._received.partition(b"\r\n\r\n")
        if body and not self._first_at:
            self._first_at = now
        if self._done.done() or not is_whole(head.lower(), body):
            return
        if head.split(b" ")[1:2] == [b"200"]:
            self._done.set_result((self._first_at, now))
        else:
            self._done.set_exception(ConnectionError("no 200"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the gateway hung up"))


def is_whole(head: bytes, body: bytes) -> bool:
    """Whether an answer with this head, in lower case, ends here."""
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    size = re.search(rb"content-length: *(\d+)", head)
    return size is not None and len(body) >= int(size[1])


async def at_rate(port: int, request: bytes, rate: float, count: int) -> Waits:
    """So many requests, so many a second, each timed from when it was due."""
    loop = asyncio.get_running_loop()
    waits = Waits([], [])
    idle: list[_Client] = []
    start = loop.time() + 0.05

    async def one(due: float) -> None:
        try:
            client = idle.pop() if idle else await _connected(port)
            async with asyncio.timeout(30):
                first, end = await client.ask(request)
        except (OSError, TimeoutError):
            waits.errors += 1
            return
        idle.append(client)
        waits.first_ms.append(1000 * (first - due))
        waits.total_ms.append(1000 * (end - due))

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            tasks.create_task(one(due))
    return waits


async def _connected(port: int) -> _Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(_Client, "127.0.0.1", port)
    return client


def percentile(values: list[float], of_100: int) -> float:
    """The value below which so many of a hundred are; nan without enough of them."""
    return quantiles(values, n=100)[of_100 - 1] if len(values) > 1 else float("nan")
