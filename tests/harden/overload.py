"""More than the proxy can take: twice its capacity, ten thousand idle connections, two thousand
streams at once.

    python -m tests.harden.overload [--seconds 120] [--connections 10000] [--streams 2000]

Capacity is slots by service time here, as with engines that generate: SLOTS requests at once, each
of which the cloud answers after SERVICE_S. Cloud, clients and proxy share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
from starlette.types import Receive, Scope, Send

from proxy import sse
from proxy.endpoints import send_bytes, send_head
from tests.harden.watched import Process, watched
from tests.scripted import chunk, completion
from tests.serving import listening

SLOTS = 20
SERVICE_S = 0.2
CHUNKS = 10


async def cloud(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers after SERVICE_S, or streams CHUNKS words with the pauses that `user` asks for."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    if not asked.get("stream"):
        await asyncio.sleep(SERVICE_S)
        said = msgspec.json.encode(completion({"role": "assistant", "content": "hi"}))
        await send_bytes(send, said, {"content-type": "application/json"})
        return
    await send_head(send, {"content-type": "text/event-stream"})
    for number in range(CHUNKS):
        event = sse.encode(msgspec.json.encode(chunk({"content": f"{number} "})))
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(float(asked["user"]))
    end = sse.encode(msgspec.json.encode(chunk({}, "stop"))) + sse.encode(sse.DONE)
    await send({"type": "http.response.body", "body": end})


@asynccontextmanager
async def stand(slots: int) -> AsyncIterator[Process]:
    """A proxy with so many slots before the cloud."""
    with tempfile.TemporaryDirectory() as directory:
        async with listening(cloud) as base_url:
            routes = Path(directory) / "routes.yaml"
            routes.write_text(
                f"version: 1\nmodels: [gpt-4o]\nbackends: {{cloud: {{kind: openai, "
                f"base_url: '{base_url}', max_connections: {slots + 100}, connect_s: 30}}}}\n"
                f"domains: {{all: {{plan: [cloud]}}}}\ndefaults: {{tools: all, chat: all}}\n"
                f"limits: {{max_in_flight: {slots}}}\nrecord: {{directory: record}}\n"
            )
            async with watched(routes) as process:
                yield process


def _body(pause_s: float | None = None) -> dict[str, object]:
    """A request; for a stream, where there are pauses."""
    return {
        "model": "gpt-4o",
        "stream": pause_s is not None,
        "messages": [{"role": "user", "content": "x"}],
        "user": str(pause_s),
    }


# ---------------------------------------------------------------- twice the capacity


class Load(NamedTuple):
    """What became of requests that came at a rate."""

    offered: float
    """Requests a second, as they were sent."""
    goodput: float
    """Answers a second."""
    p50_s: float
    p99_s: float
    """Of those that were answered."""
    statuses: Counter[int]

    def __str__(self) -> str:
        return (
            f"offered {self.offered:.0f}/s: answered {self.goodput:.1f}/s, p50 {self.p50_s:.3f} s,"
            f" p99 {self.p99_s:.3f} s; statuses {dict(sorted(self.statuses.items()))}"
        )


async def load(process: Process, rate: float, seconds: float) -> Load:
    """So many requests a second, whatever becomes of them."""
    statuses: Counter[int] = Counter()
    times: list[float] = []
    url = f"{process.base_url}/chat/completions"

    async def one(session: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        async with session.post(url, json=_body()) as answer:
            await answer.read()
            statuses[answer.status] += 1
            if answer.status == 200:
                times.append(time.monotonic() - began)

    began, due = time.monotonic(), time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        while due < began + seconds:
            tasks.create_task(one(session))
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    took = time.monotonic() - began
    times.sort()
    sent = sum(statuses.values())
    middle, last = times[len(times) // 2], times[int(len(times) * 0.99)]
    return Load(sent / took, len(times) / took, middle, last, statuses)


# ---------------------------------------------------------------- many at once


async def idle(process: Process, count: int) -> str:
    """So many connections that have had an answer, and one request among them."""
    host, port = process.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    before, gate = process.rss(), asyncio.Semaphore(200)

    async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b'"ok"}')
            return reader, writer

    held = await asyncio.gather(*(connected() for _ in range(count)))
    after, began = process.rss(), time.monotonic()
    descriptors = process.descriptors()
    async with aiohttp.ClientSession() as session:
        url = f"{process.base_url}/chat/completions"
        async with session.post(url, json=_body()) as answer:
            status = answer.status
    took = time.monotonic() - began
    open_still = sum(not reader.at_eof() for reader, _ in held)
    for _, writer in held:
        writer.close()
    return (
        f"{count} idle connections: {open_still} open, {descriptors} descriptors,"
        f" {(after - before) * 1024 / count:.1f} KiB each; a request among them: {status} after"
        f" {took:.3f} s (the cloud takes {SERVICE_S} s)"
    )


async def streams(process: Process, count: int, pause_s: float) -> tuple[int, str]:
    """So many streams at once; how many came whole. They begin within half of the time that each
    takes, since clients and cloud are one process here."""
    ends: Counter[str] = Counter()
    url, each_s = f"{process.base_url}/chat/completions", CHUNKS * pause_s
    open_now, most = 0, 0

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal open_now, most
        await asyncio.sleep(number / count * each_s / 2)
        try:
            async with session.post(url, json=_body(pause_s)) as answer:
                open_now += 1
                most = max(most, open_now)
                content = await answer.read()
                open_now -= 1
        except aiohttp.ClientError as error:
            ends[type(error).__name__] += 1
            return
        is_whole = content.count(b'"content"') == CHUNKS and b"[DONE]" in content
        ends["whole" if is_whole else str(answer.status)] += 1

    began = time.monotonic()
    connector, wait = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=wait) as session:
        await asyncio.gather(*(one(session, number) for number in range(count)))
    took = time.monotonic() - began
    told = f"{count} streams: {dict(ends)}, {most} open at once, in {took:.1f} s"
    return ends["whole"], f"{told} (alone: {1.5 * each_s:.1f} s); {process.rss():.0f} MiB"


async def shown(seconds: float, connections: int, count: int) -> bool:
    """All three, printed; whether each held."""
    most = SLOTS / SERVICE_S
    async with stand(SLOTS) as process:
        best = await load(process, 0.9 * most, min(20.0, seconds))
        print(f"slots for {most:.0f} requests a second\n{best}", flush=True)
        twice = await load(process, 2 * most, seconds)
        print(twice, flush=True)
        again = await load(process, 0.9 * most, min(20.0, seconds))
        print(f"afterwards {again}", flush=True)
        print(await idle(process, connections), flush=True)
    async with stand(count + 10) as process:
        whole, told = await streams(process, count, 6.0)
        print(told)
    has_held = twice.goodput >= 0.9 * max(best.goodput, most) and set(twice.statuses) <= {200, 429}
    return has_held and twice.p99_s < 10 * SERVICE_S and whole == count


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--seconds", type=float, default=120)
    given.add_argument("--connections", type=int, default=10_000)
    given.add_argument("--streams", type=int, default=2000)
    asked = given.parse_args()
    sys.exit(not asyncio.run(shown(asked.seconds, asked.connections, asked.streams)))


if __name__ == "__main__":
    main()
