"""A candidate that people dislike goes back, while a client asks on; and two that race."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.protocol import champions
from tests.engines import bundles
from tests.engines.farm import SlowVllm, farm
from tests.engines.pooled import Pooled, pooled

ROOT = Path(__file__).parents[2]
SETTINGS = """
shadow_pairs: 0
stages: [{share: 0.5, min_conversations: 40, max_conversations: 200, min_s: 5}]
rules: [disliked]
settle_s: 1
"""


async def promoting(at: Pooled, id: str, *more: str) -> asyncio.subprocess.Process:
    """`headrace-trainer promote`, against the gate's advice."""
    (at.directory / "promotion.yaml").write_text(SETTINGS)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer", "promote", id, "--json", *more),
        *("--adapters", str(at.adapters), "--record", str(at.directory / "record")),
        *("--settings", str(at.directory / "promotion.yaml"), "--proxy", at.url),
        *("--force", "--reason", "to see what becomes of it"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def asked(at: Pooled, number: int) -> str:
    """Who answered a conversation of its own; the candidate's answer gets a thumb down."""
    message = {"role": "user", "content": f"Question {number}"}
    body = {"model": "gpt-4o", "messages": [message]}
    async with at.session.post(f"{at.url}/chat/completions", json=body) as response:
        assert response.status == 200
        said, adapter = await response.json(), response.headers["x-headrace-adapter"]
    assert said["choices"][0]["message"]["content"]
    thumb = {"kind": "boolean", "value": adapter == "chat-v1", "exchange_id": said["id"]}
    async with at.session.post(f"{at.url}/feedback", json=thumb) as response:
        assert response.status == 200
    return adapter


async def ask_on(at: Pooled, command: asyncio.subprocess.Process) -> list[str]:
    """Who answered while the command ran."""
    answered: list[str] = []
    while command.returncode is None:
        answered.append(await asked(at, len(answered)))
    return answered


async def test_candidate_that_people_dislike_goes_back(tmp_path: Path):
    async with farm(SlowVllm, machines=1) as machines, pooled(tmp_path, "vllm", machines) as at:
        bundles.write(at.adapters, "chat-v2")
        command = await promoting(at, "chat-v2")
        reading = asyncio.ensure_future(command.communicate())
        answered = await ask_on(at, command)
        told, _ = await reading
        await at.until(lambda told: not told.candidates, within=60)
        after = [await asked(at, 1000 + number) for number in range(8)]

    last = msgspec.json.decode(told.splitlines()[-1])
    assert (command.returncode, last["word"]) == (20, "rolled back")
    assert "chat-v2 is worse: disliked in" in last["reason"]
    assert set(answered) == {"chat-v1", "chat-v2"}
    assert set(after) == {"chat-v1"}
    assert champions.read(at.adapters).serving == {"chat": "chat-v1"}
    assert champions.read(at.adapters).domains["chat"].cooldown_until


async def test_of_two_promotions_that_race_one_wins_and_the_other_says_so(tmp_path: Path):
    for id in ("chat-v1", "chat-v2", "chat-v3"):
        bundles.write(tmp_path / "adapters", id)
    (tmp_path / "record").mkdir()
    async with aiohttp.ClientSession() as session:
        at = Pooled("http://127.0.0.1:9/v1", tmp_path, session)
        commands = [await promoting(at, id, "--once") for id in ("chat-v2", "chat-v3")]
        told = [(await one.communicate())[1].decode() for one in commands]

    codes = [one.returncode for one in commands]
    assert sorted(codes) == [1, 10]
    winner = champions.read(at.adapters).domains["chat"].candidate.adapter
    assert winner == ("chat-v2", "chat-v3")[codes.index(10)]
    assert f"{winner} is being promoted" in told[codes.index(1)]
