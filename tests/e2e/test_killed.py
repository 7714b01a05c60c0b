"""A proxy is killed under load, again and again: what it had written is there, once, and whole.

HEADRACE_KILLS says how often (`make test-long`: 20).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from proxy.protocol.segments import SUFFIX, read
from tests.scripted import KEPT, ScriptedCloud, answer, completion
from tests.test_main import served
from tests.wire import body

KILLS = int(os.environ.get("HEADRACE_KILLS", "3"))
RATE = 200
SECONDS = 1.5


async def load(base_url: str, answered: dict[str, float], prefix: str) -> None:
    """Send RATE requests a second until cancelled; note when each was answered."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for number in range(int(RATE * SECONDS * 2)):
            tasks.create_task(_ask(session, base_url, f"{prefix}-{number}", answered))
            await asyncio.sleep(1 / RATE)


async def _ask(
    session: aiohttp.ClientSession, base_url: str, id: str, answered: dict[str, float]
) -> None:
    try:
        async with session.post(
            f"{base_url}/chat/completions", json=body(), headers={"x-request-id": id}
        ) as response:
            await response.read()
            if response.status == 200:
                answered[id] = time.monotonic()
    except aiohttp.ClientError:
        pass


async def watch(base_url: str, written: list[int]) -> None:
    """Note, again and again, how many exchanges the proxy says it has written."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(base_url.replace("/v1", "/ready")) as response:
                written.append((await response.json())["record"]["written"])
            await asyncio.sleep(0.02)


@dataclass
class Kill:
    """What was known of a proxy when it was killed."""

    answered: dict[str, float] = field(default_factory=dict)
    """Seconds, on some clock, at which each request was answered."""
    written: list[int] = field(default_factory=list)
    at: float = 0.0


async def killed_under_load(routes: Path, name: str) -> Kill:
    kill = Kill()
    # Nobody reads its log: a full pipe would stop it.
    async with served(routes, "--log-level", "error") as server:
        tasks = [
            asyncio.create_task(load(server.base_url, kill.answered, name)),
            asyncio.create_task(watch(server.base_url, kill.written)),
        ]
        await asyncio.sleep(SECONDS)
        kill.at = time.monotonic()
        server.process.send_signal(signal.SIGKILL)
        await server.process.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return kill


async def test_killed_proxy_loses_nothing_that_it_said_was_written(
    cloud: ScriptedCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"}), KEPT))
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"version: 1\nmodels: [gpt-4o]\n"
        f"backends: {{cloud: {{kind: openai, base_url: '{cloud.base_url}'}}}}\n"
        f"domains: {{all: {{plan: [cloud]}}}}\ndefaults: {{tools: all, chat: all}}\n"
        f"record: {{directory: record}}\n"
    )

    kills = [await killed_under_load(routes, str(number)) for number in range(KILLS)]

    damages: list[tuple[Path, int]] = []
    kept = read(tmp_path / "record", lambda *at: damages.append(at))
    ids = Counter(exchange.request_id for exchange in kept)
    found = Counter(id.split("-")[0] for id in ids)
    lost = [kill.at - at for kill in kills for id, at in kill.answered.items() if id not in ids]
    with capsys.disabled():
        answered = sum(len(kill.answered) for kill in kills)
        oldest = f"{max(lost, default=0):.3f} s"
        print(f"\n{KILLS} kills, {answered} answered: {len(lost)} lost, of which the oldest was")
        print(f"answered {oldest} before its proxy was killed; {len(damages)} torn")
    assert all(max(kill.written) > 0 for kill in kills)
    short = [n for n, kill in enumerate(kills) if found[str(n)] < max(kill.written)]
    assert short == []
    assert max(ids.values()) == 1
    assert len(damages) <= KILLS
    assert len(list((tmp_path / "record").glob(f"*{SUFFIX}"))) == KILLS
