"""Mixed traffic for a long time: memory, descriptors and tasks stay, and every request is counted.

    python -m tests.harden.soak --minutes 60 [--rate 0] [--seed 1]

`headrace serve` stands between a cloud and an engine of this process. Whole answers, streams, tool
calls that an adapter answers, clients that leave, errors of all kinds; every few seconds the
settings are read anew, and the champion of a domain changes. Without a rate, 60 % of what the proxy
answers in five seconds of as much as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from scipy import stats

from proxy.protocol.segments import read
from tests.engines import bundles
from tests.engines.standing import standing
from tests.engines.vllm_stand_in import VllmStandIn
from tests.harden.chaos import cloud
from tests.harden.watched import Process, watched
from tests.scraping import scraped, total
from tests.serving import listening

KINDS = {"whole": 30, "stream": 30, "tool": 15, "leave": 10, "malformed": 5, "unknown": 5, "big": 5}
"""Kinds of requests, and how many of a hundred."""
ENDS = (" 200", " 400", " 404", " 429", " 504")
"""How a request may end: 504 where the machine, and the cloud on it, stands still for too long."""
RECORDED = frozenset({"whole", "stream", "tool", "leave", "big"})
TOOL = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}
CHANGE_S = 5.0
"""Seconds between two changes of settings or champion."""
CAPACITY_S = 5.0
SETTLED_MINUTES = 30
"""A run so long has half of it when caches are full: its memory must not grow then."""
REST_S = 40.0
"""Seconds in which all that traffic needed must be given back."""


class Stand(NamedTuple):
    """What is under test, and its files."""

    process: Process
    routes: Path
    adapters: Path
    record: Path

    @property
    def url(self) -> str:
        return self.process.base_url


@asynccontextmanager
async def stand(directory: Path, port_of_cloud: str | None = None) -> AsyncIterator[Stand]:
    """A proxy in a process of its own, a cloud and an engine in this one."""
    adapters, routes = directory / "adapters", directory / "routes.yaml"
    for id in ("api-v1", "api-v2"):
        bundles.write(adapters, id)
    promote(adapters, 1)
    async with AsyncExitStack() as stack:
        base_url = port_of_cloud or await stack.enter_async_context(listening(cloud))
        engine = VllmStandIn(bundles.toy("api-v1", "api-v2"))
        engine.bodies = engine.prompts = _Nothing()
        await stack.enter_async_context(standing(engine))
        text = (
            f"version: 1\nmodels: [gpt-4o]\n"
            f"backends:\n  cloud: {{kind: openai, base_url: '{base_url}'}}\n"
            f"  local: {{kind: vllm, replicas: ['{engine.url}'], base_model: {bundles.MODEL},"
            f" adapters: '{adapters}', served_model: base, plain: hermes}}\n"
            f"domains:\n  api: {{plan: [local, cloud], tools: [ping]}}\n  all: {{plan: [cloud]}}\n"
            f"defaults: {{tools: all, chat: all}}\n"
            f"limits: {{max_in_flight: 64}}\nrecord: {{directory: '{directory / 'record'}'}}\n"
        )
        routes.write_text(text)
        process = await stack.enter_async_context(watched(routes))
        yield Stand(process, routes, adapters, directory / "record")


class _Nothing(list[Any]):
    """What the engine would remember of each request, for tests that look into it."""

    def append(self, _: object) -> None:
        pass


def promote(adapters: Path, number: int) -> None:
    """The champion file as a trainer leaves it, in one step."""
    new = adapters / "champions.new"
    new.write_text(json.dumps({"api": f"api-v{1 + number % 2}"}))
    new.replace(adapters / "champions.json")


# ---------------------------------------------------------------- who asks


class Traffic:
    """Sends what a seed says, and counts how it ended."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = f"{url}/chat/completions"
        self._name = f"s{seed}"
        self._chance = random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    async def one(self, session: aiohttp.ClientSession) -> None:
        """One request of some kind, to its end."""
        (kind,) = self._chance.choices(list(KINDS), KINDS.values())
        self.sent[kind] += 1
        number = f"{self._name}-{kind}-{self.sent[kind]}"
        body: dict[str, object] = {
            "model": "nobody" if kind == "unknown" else "gpt-4o",
            "messages": [{"role": "user", "content": number}],
            "stream": kind in ("stream", "leave"),
        }
        if kind == "tool":
            body["tools"] = [TOOL]
        if kind == "big":
            body["user"] = "u" * 200_000
        content = b"{" if kind == "malformed" else json.dumps(body).encode()
        headers = {"content-type": "application/json", "x-request-id": number}
        try:
            async with session.post(self._url, data=content, headers=headers) as answer:
                if kind == "leave":
                    # Not read to its end, the connection is closed.
                    await answer.content.readany()
                    answer.close()
                else:
                    await answer.read()
                end = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            end = type(error).__name__
        self.ends[f"{kind} {end}"] += 1

    async def for_seconds(self, seconds: float, rate: float) -> None:
        """So many a second, whether or not they are answered in time."""
        until, due = time.monotonic() + seconds, time.monotonic()
        connector = aiohttp.TCPConnector(limit=256)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            asyncio.TaskGroup() as tasks,
        ):
            while time.monotonic() < until:
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(self.one(session))


async def capacity(url: str, seconds: float = CAPACITY_S) -> float:
    """Requests a second that are answered when sixteen clients ask without a pause."""
    traffic, until = Traffic(url, -1), time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            await traffic.one(session)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(16)))
    return sum(traffic.ends.values()) / seconds


# ---------------------------------------------------------------- what is seen


class Sample(NamedTuple):
    at: float
    rss: float
    """MiB."""
    descriptors: int
    tasks: int


async def sampled(process: Process, every_s: float, samples: list[Sample]) -> None:
    """Look at the process, again and again; a line a minute says how it is."""
    told_at = began = time.monotonic()
    while True:
        tasks = await process.tasks()
        seen = Sample(time.monotonic(), process.rss(), process.descriptors(), tasks)
        samples.append(seen)
        if seen.at - told_at >= 60:
            told_at = seen.at
            print(
                f"{(seen.at - began) / 60:.0f} min: {seen.rss:.0f} MiB,"
                f" {seen.descriptors} descriptors, {seen.tasks} tasks",
                file=sys.stderr,
            )
        await asyncio.sleep(every_s)


async def changes(at: Stand, made: Counter[str]) -> None:
    """New settings and a new champion, turn about."""
    async with aiohttp.ClientSession() as session:
        while True:
            await asyncio.sleep(CHANGE_S)
            made["promotions"] += 1
            promote(at.adapters, made["promotions"])
            await asyncio.sleep(CHANGE_S)
            at.routes.write_text(at.routes.read_text() + "# changed\n")
            url = at.url.replace("/v1", "/admin/reload")
            async with session.post(url) as answer:
                made[f"reloads {answer.status}"] += 1


class Slope(NamedTuple):
    """How the memory went, in MiB an hour, with its 95 % interval."""

    low: float
    middle: float
    high: float


def sixths(values: list[float]) -> list[float]:
    """The median of each sixth of a run: what goes up and stays up is seen in them."""
    return [float(np.median(part)) for part in np.array_split(values, 6)]


def slope(samples: list[Sample]) -> Slope:
    """Of the second half: by then caches are full. Theil and Sen's, which outliers do not move."""
    later = samples[len(samples) // 2 :]
    hours = np.array([one.at for one in later]) / 3600
    found = stats.theilslopes([one.rss for one in later], hours)
    return Slope(found.low_slope, found.slope, found.high_slope)


class Seen(NamedTuple):
    seconds: float
    rate: float
    sent: int
    counted: float
    """Requests by /metrics."""
    due: int
    """Requests that are to be in the record."""
    recorded: int
    samples: list[Sample]
    descriptors: tuple[int, int]
    tasks: tuple[int, int]
    """At rest, before and after."""
    made: Counter[str]
    ends: Counter[str]

    @property
    def holds(self) -> bool:
        is_counted = self.sent == self.counted and self.due == self.recorded
        is_at_rest = _is_at_rest(*(Sample(0, 0, *pair) for pair in self._pairs))
        expected = all(end.endswith(ENDS) for end in self.ends)
        return is_counted and is_at_rest and expected

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        """Descriptors and tasks, after and before."""
        return [(self.descriptors[at], self.tasks[at]) for at in (1, 0)]

    def __str__(self) -> str:
        low, middle, high = slope(self.samples)
        _, rss, descriptors, tasks = map(list, zip(*self.samples, strict=True))
        return "\n".join([
            f"{self.seconds:.0f} s at {self.rate:.0f} requests a second",
            f"requests: {self.sent} sent, {self.counted:.0f} in /metrics",
            f"recorded: {self.due} due, {self.recorded} in the record",
            f"memory: {rss[0]:.1f} MiB at the beginning, {rss[-1]:.1f} at the end; second"
            f" half {middle:+.1f} MiB an hour (95 %: {low:+.1f} to {high:+.1f})",
            f"memory by sixths, MiB: {', '.join(f'{one:.1f}' for one in sixths(rss))}",
            f"descriptors by sixths: {', '.join(f'{one:.0f}' for one in sixths(descriptors))};"
            f" tasks: {', '.join(f'{one:.0f}' for one in sixths(tasks))}",
            f"descriptors at rest: {self.descriptors[0]} → {self.descriptors[1]};"
            f" tasks: {self.tasks[0]} → {self.tasks[1]}",
            f"changes: {dict(self.made)}",
            f"ends: {dict(sorted(self.ends.items()))}",
        ])  # fmt: skip


async def soak(directory: Path, seconds: float, rate: float, seed: int) -> Seen:
    """The whole of it."""
    samples: list[Sample] = []
    made: Counter[str] = Counter()
    async with stand(directory) as at:
        if not rate:
            rate = 0.6 * await capacity(at.url)
        else:
            await capacity(at.url, 1.0)
        before = await _resting(at, None)
        counted = total(await scraped(at.url), "headrace_requests_total")
        traffic = Traffic(at.url, seed)
        beside = [
            asyncio.ensure_future(sampled(at.process, max(0.2, seconds / 300), samples)),
            asyncio.ensure_future(changes(at, made)),
        ]
        await traffic.for_seconds(seconds, rate)
        for task in beside:
            task.cancel()
        for ended in await asyncio.gather(*beside, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                made[f"gave up: {ended!r}"] += 1
        after = await _resting(at, before)
        told = total(await scraped(at.url), "headrace_requests_total") - counted
    names = Counter(exchange.request_id for exchange in read(at.record))
    kept = sum(count for name, count in names.items() if name.startswith(f"s{seed}-"))
    sent = sum(traffic.sent.values())
    due = sum(traffic.sent[kind] - traffic.ends[f"{kind} 429"] for kind in RECORDED)
    return Seen(
        seconds, rate, sent, told, due, kept, samples,
        (before.descriptors, after.descriptors), (before.tasks, after.tasks), made, traffic.ends,
    )  # fmt: skip


async def _resting(at: Stand, before: Sample | None) -> Sample:
    """The process when nobody asks: idle connections to the cloud end after 15 s."""
    process, until = at.process, time.monotonic() + REST_S
    while True:
        await asyncio.sleep(2.0)
        found = Sample(
            time.monotonic(), process.rss(), process.descriptors(), await process.tasks()
        )
        if before is not None and (time.monotonic() > until or _is_at_rest(found, before)):
            return found
        if before is None and time.monotonic() > until - REST_S + 2:
            return found


def _is_at_rest(found: Sample, before: Sample) -> bool:
    return found.tasks <= before.tasks + 2 and found.descriptors <= before.descriptors + 8


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--minutes", type=float, default=60)
    given.add_argument("--rate", type=float, default=0, help="requests a second; 0: measured")
    given.add_argument("--seed", type=int, default=1)
    asked = given.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(soak(Path(directory), 60 * asked.minutes, asked.rate, asked.seed))
    print(found)
    grows = asked.minutes >= SETTLED_MINUTES and slope(found.samples).low > 0
    sys.exit(0 if found.holds and not grows else 1)


if __name__ == "__main__":
    main()
