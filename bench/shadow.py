"""What a shadow costs the clients: latency and errors with it and without, in the same run.

    .venv/bin/python bench/shadow.py [--requests 150] [--rounds 8] [--rate 150]
        [--share 1] [--form chat] [--target-is well]

Two proxies run side by side, one with a shadow and one without; both have the same
local engine, which answers after 5 ms. They are asked in turn, a round each, while the shadow's
target is well, ten times slower than the engine, hangs, refuses, or answers garbage. Each proxy is
a process of its own, the target another one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp import web

from proxy import logs
from proxy.app import assemble, shadowing
from proxy.backends.base import Ask, Event, Finish, Generated, Text
from proxy.backends.openai import OpenAIBackend
from proxy.catalog import Catalog
from proxy.config import parse
from proxy.protocol.openai import ChatRequest, Usage
from proxy.recorder import Recorder
from proxy.server import Server, address, bind
from proxy.sinks.segments import SegmentSink

ANSWER_S = 0.005
SLOW_S = 10 * ANSWER_S
FAULTS = ("well", "slow", "hangs", "refuses", "garbage")
FORMS = ("chat", "stream", "responses")
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello. " * 20}]}
ASKED = {
    "chat": ("/chat/completions", CHAT),
    "stream": ("/chat/completions", {**CHAT, "stream": True}),
    "responses": ("/responses", {"model": "gpt-4o", "input": "Say hello. " * 20}),
}


# ---------------------------------------------------------------- the shadow's target


async def _target() -> None:
    app = web.Application()
    app.add_routes([web.post("/{fault}/v1/chat/completions", _answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


async def _answer(request: web.Request) -> web.StreamResponse:
    fault = request.match_info["fault"]
    if fault == "garbage":
        return web.Response(body=b"\xff\x00{" * 20_000, content_type="application/json")
    await asyncio.sleep({"slow": SLOW_S, "hangs": 3600}.get(fault, ANSWER_S))
    message = {"role": "assistant", "content": "Hello."}
    return web.json_response(
        {
            "id": "chatcmpl-target",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 2, "total_tokens": 52},
        }
    )


# ---------------------------------------------------------------- a proxy


class Engine:
    """A local engine that takes 5 ms."""

    name = "local"
    is_local = True

    def lacks(self, request: ChatRequest) -> str | None:
        return None

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        yield Generated(self._events())

    async def _events(self) -> AsyncIterator[Event]:
        await asyncio.sleep(ANSWER_S)
        yield Text("Hello.")
        yield Finish(reason="stop", usage=Usage.of(50, 2))

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


async def _proxy(directory: Path, target: str, share: float) -> None:
    """A proxy that logs as `headrace serve` does; without a target it has no shadow."""
    logs.configure()
    shadow = f", shadow: {{to: other, share: {share}, deadline_s: 10}}" if target else ""
    config = parse(
        "version: 1\nmodels: [gpt-4o]\n"
        "backends:\n  local: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
        "  other: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
        f"domains: {{all: {{plan: [local]{shadow}}}}}\n"
        "defaults: {tools: all, chat: all}\nrecord: {directory: .}\n",
        directory,
        {},
    )
    other = OpenAIBackend("other", base_url=target or "http://127.0.0.1:1/v1")
    catalog = Catalog({"local": Engine(), "other": other}, {})
    recorder = Recorder(SegmentSink(directory))
    shadows = shadowing(config, catalog, recorder)
    with bind("127.0.0.1", 0) as bound:
        ready = lambda: print(f"http://{address(bound)}", flush=True)  # noqa: E731
        proxy = assemble(config, catalog, recorder, shadows=shadows)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(recorder.run())
            if shadows is not None:
                tasks.create_task(shadows.run())
            await Server(proxy.app, grace_s=1, on_ready=ready).serve(sockets=[bound])


@asynccontextmanager
async def _child(*arguments: str) -> AsyncIterator[str]:
    """The address that a process of this script prints; it is killed at the end."""
    root = str(Path(__file__).parents[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": root},
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


# ---------------------------------------------------------------- load


class Round:
    """The answers to one round of requests."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.errors = 0

    def percentile(self, part: float) -> float:
        """Milliseconds."""
        return sorted(self.seconds)[int(part * (len(self.seconds) - 1))] * 1000


class Load(NamedTuple):
    """How much is asked."""

    requests: int
    """Of a round."""
    rounds: int
    rate: float
    """Requests a second, whatever becomes of those before."""
    share: float
    """Of the requests that are shadowed."""


async def _round(session: aiohttp.ClientSession, url: str, form: str, load: Load) -> Round:
    done, began = Round(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(load.requests):
            await asyncio.sleep(began + number / load.rate - time.perf_counter())
            tasks.create_task(_asked(session, url, form, number, done))
    return done


async def _asked(
    session: aiohttp.ClientSession, url: str, form: str, number: int, done: Round
) -> None:
    path, body = ASKED[form]
    headers = {"x-headrace-conversation": f"c-{number}"}
    began = time.perf_counter()
    async with session.post(f"{url}/v1{path}", json=body, headers=headers) as answer:
        content = await answer.read()
    done.seconds.append(time.perf_counter() - began)
    done.errors += answer.status != 200 or b"Hello." not in content


async def _compared(form: str, fault: str, target: str, load: Load) -> str:
    to = "http://127.0.0.1:9/v1" if fault == "refuses" else f"{target}/{fault}/v1"
    with tempfile.TemporaryDirectory() as off, tempfile.TemporaryDirectory() as on:
        async with (
            _child("--proxy", off) as without,
            _child("--proxy", on, "--to", to, "--share", str(load.share)) as with_it,
            aiohttp.ClientSession() as session,
        ):
            both: dict[str, list[Round]] = {without: [], with_it: []}
            for url in both:
                await _round(session, url, form, load)
            for number in range(load.rounds):
                for url in (without, with_it) if number % 2 else (with_it, without):
                    both[url].append(await _round(session, url, form, load))
            async with session.get(f"{with_it}/ready") as answer:
                lane = (await answer.json())["shadows"]["all"]
    told = {**lane["outcomes"], **lane["dropped"]}
    shadows = ", ".join(f"{name} {number}" for name, number in told.items())
    return f"{form:9}  {fault:8}  {_figures(both[without])}  {_figures(both[with_it])}  {shadows}"


def _figures(rounds: list[Round]) -> str:
    """Median over the rounds, and for the 99th percentile their range."""
    halves = statistics.median(one.percentile(0.5) for one in rounds)
    tails = sorted(one.percentile(0.99) for one in rounds)
    errors = sum(one.errors for one in rounds)
    tail = f"{statistics.median(tails):.1f} ({tails[0]:.1f}-{tails[-1]:.1f})"
    return f"{halves:6.1f} {tail:>18} {errors:6}"


async def _all(load: Load, forms: Sequence[str], faults: Sequence[str]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};")
    print(
        f"{load.rounds} rounds of {load.requests} requests each, {load.rate:g} a second, in turn;"
        f" share {load.share:g}\n"
    )
    side = f"{'p50 ms':>6} {'p99 ms (rounds)':>18} {'errors':>6}"
    print(f"{'':9}  {'':8}  {'shadow off':^32}  {'shadow on':^32}")
    print(f"{'form':9}  {'target':8}  {side}  {side}  shadows")
    async with _child("--target") as target:
        for form in forms:
            for fault in faults:
                print(await _compared(form, fault, target, load), flush=True)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=150, help="of a round")
    parser.add_argument("--rounds", type=int, default=8, help="of each proxy")
    parser.add_argument("--rate", type=float, default=150, help="requests a second")
    parser.add_argument("--share", type=float, default=1, help="part that is shadowed")
    parser.add_argument("--form", choices=FORMS, action="append", help="only this one")
    parser.add_argument("--target-is", choices=FAULTS, action="append", help="only so")
    parser.add_argument("--proxy", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--to", default="", help=argparse.SUPPRESS)
    parser.add_argument("--target", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.target:
        asyncio.run(_target())
    elif options.proxy is not None:
        asyncio.run(_proxy(options.proxy, options.to, options.share))
    else:
        load = Load(options.requests, options.rounds, options.rate, options.share)
        asyncio.run(_all(load, options.form or FORMS, options.target_is or FAULTS))


if __name__ == "__main__":
    main()
