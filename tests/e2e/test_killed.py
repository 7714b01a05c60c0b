"""A proxy is killed under load, again and again: what it had written is there, once, and whole.

HEADRACE_KILLS says how often (`make test-long`: 20).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
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
WINDOW = 0.5
"""Seconds between two syncs; half a second more is what the writer may be behind on a busy machine.
"""


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


async def test_killed_proxy_loses_no_more_than_the_last_sync(
    cloud: ScriptedCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"}), KEPT))
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"version: 1\nmodels: [gpt-4o]\n"
        f"backends: {{cloud: {{kind: openai, base_url: '{cloud.base_url}'}}}}\n"
        f"domains: {{all: {{plan: [cloud]}}}}\ndefaults: {{tools: all, chat: all}}\n"
        f"record: {{directory: record, sync_s: {WINDOW}}}\n"
    )
    answered: set[str] = set()
    safe: set[str] = set()

    for kill in range(KILLS):
        # Nobody reads its log: a full pipe would stop it.
        async with served(routes, "--log-level", "error") as server:
            at: dict[str, float] = {}
            loading = asyncio.create_task(load(server.base_url, at, str(kill)))
            await asyncio.sleep(SECONDS)
            killed_at = time.monotonic()
            server.process.send_signal(signal.SIGKILL)
            await server.process.wait()
            loading.cancel()
            await asyncio.wait([loading])
        answered |= at.keys()
        safe |= {id for id, when in at.items() if when < killed_at - WINDOW - 0.5}

    damages: list[tuple[Path, int]] = []
    found = Counter(
        one.request_id for one in read(tmp_path / "record", lambda *at: damages.append(at))
    )
    lost = answered - found.keys()
    with capsys.disabled():
        print(f"\n{KILLS} kills: {len(answered)} answered, {len(lost)} lost, {len(damages)} torn")
    assert len(safe) >= KILLS
    assert safe - found.keys() == set()
    assert max(found.values()) == 1
    assert len(damages) <= KILLS
    assert len(list((tmp_path / "record").glob(f"*{SUFFIX}"))) == KILLS
