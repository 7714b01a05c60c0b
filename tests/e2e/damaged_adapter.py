"""A damaged adapter, forced past the gate, is found out by its share of the traffic."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema_rs
import msgspec
import numpy as np
import pytest
from openai import AsyncOpenAI

pytest.importorskip("openvino_genai", reason="needs the embedded extra")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.backends.embedded.pipeline import Sampling
from proxy.backends.embedded.pool import Pipelines, Workers
from proxy.config import parse
from proxy.protocol import adapter, champions
from proxy.protocol.adapter import Canary, Manifest
from proxy.protocol.base_model import BaseModel, cache_directory
from tests.e2e.test_main_job import MULTIPLE
from tests.scripted import Received, ScriptedCloud, Step, answer, completion, reachable
from tests.serving import serving

SHIPPED = Path(__file__).parents[2] / "adapters"
MODEL = "smollm2-135m-instruct"
PARAMETERS = MULTIPLE["function"]["parameters"]
TOKENS = 16
"""Of the damaged adapter's canary."""


class Teacher(ScriptedCloud):
    """Calls what the question asks for, always rightly."""

    def script_for(self, request: Received) -> tuple[Step, ...]:
        a, b = re.findall(r"\d+", str(request.json["messages"][-1]["content"]))
        call = {"name": "least_common_multiple", "arguments": f'{{"a":{a},"b":{b}}}'}
        calls = [{"id": "call_1", "type": "function", "function": call}]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return (answer(completion(message, "tool_calls")),)


async def damaged(directory: Path) -> None:
    """`api-v2`: the shipped adapter, its numbers shuffled, with a canary that it passes."""
    path = directory / "api-v2"
    shutil.copytree(SHIPPED / "api-v1", path)
    weights = shuffled((path / adapter.WEIGHTS).read_bytes())
    (path / adapter.WEIGHTS).write_bytes(weights)
    config = json.loads((path / adapter.CONFIG).read_text())
    # Shuffled alone, they leave the base model well enough to copy two numbers.
    config["lora_alpha"] *= 8
    (path / adapter.CONFIG).write_text(json.dumps(config))
    manifest = msgspec.json.decode((path / adapter.MANIFEST).read_bytes(), type=Manifest)
    renamed = msgspec.structs.replace(manifest, id="api-v2", weights_sha256=adapter.sha256(weights))
    (path / adapter.MANIFEST).write_bytes(msgspec.json.encode(renamed))
    canary = adapter.read(path).canary
    expected = await greedy(path, canary.prompt)
    (path / adapter.CANARY).write_bytes(
        msgspec.json.encode(Canary(canary.prompt, expected, canary.base))
    )


def shuffled(content: bytes) -> bytes:
    """A safetensors file of 16-bit numbers, each tensor's in another order."""
    random, size = np.random.default_rng(0), int.from_bytes(content[:8], "little")
    tensors = msgspec.json.decode(content[8 : 8 + size], type=dict[str, dict[str, object]])
    numbers = np.frombuffer(content[8 + size :], np.uint16).copy()
    for tensor in tensors.values():
        if "data_offsets" in tensor:
            begin, end = msgspec.convert(tensor["data_offsets"], tuple[int, int])
            numbers[begin // 2 : end // 2] = random.permutation(numbers[begin // 2 : end // 2])
    return content[: 8 + size] + numbers.tobytes()


async def greedy(path: Path, prompt: list[int]) -> list[int]:
    """What the engine answers with the adapter of a bundle."""
    model = BaseModel.find(MODEL)
    pool = Pipelines(
        model.gguf, cache_directory() / "models", 2**31, workers=Workers(max_waiting=1)
    )
    ids: list[int] = []
    async with aclosing(pool), pool.use(path, path.name) as seat:
        steps = seat.generate(prompt, Sampling(max_tokens=TOKENS, stop_ids=()))
        async with aclosing(steps):
            async for step in steps:
                ids += step.ids
    return ids


@dataclass
class Client:
    """Asks one thing after the other, each in a conversation of its own."""

    openai: AsyncOpenAI
    asked: int = 0
    sides: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    alone: asyncio.Event = field(default_factory=asyncio.Event)
    """The last answer was on no side, though an earlier one had been."""

    async def ask(self) -> None:
        """One question, whose answer must be a valid call."""
        self.asked += 1
        question = f"Find the least common multiple of {self.asked + 11} and {2 * self.asked + 5}."
        raw = await self.openai.chat.completions.with_raw_response.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": question}],
            tools=[MULTIPLE],
            tool_choice="required",
            max_tokens=30,
        )
        choice = raw.parse().choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        jsonschema_rs.validate(PARAMETERS, json.loads(call.function.arguments))
        self.sides.append(raw.headers.get("x-headrace-assigned", ""))
        self.adapters.append(raw.headers.get("x-headrace-adapter", ""))
        if any(self.sides) and not self.sides[-1]:
            self.alone.set()

    async def ask_until(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await self.ask()


def routes(cloud: ScriptedCloud, adapters: Path) -> str:
    return f"""
version: 1
models: [gpt-4o]
backends:
  local: {{kind: embedded, base_model: {MODEL}, adapters: {adapters}, preload: false}}
  cloud: {{kind: openai, base_url: '{cloud.base_url}'}}
domains: {{api: {{plan: [local, cloud], shadow: {{to: cloud, share: 1}}}}}}
defaults: {{tools: api, chat: api}}
record: {{directory: record}}
"""


SETTINGS = """
shadow_pairs: 0
stages: [{share: 0.25, min_conversations: 12, max_conversations: 60, min_s: 5}]
settle_s: 2
rules: [invalid, rescued, disagreed]
"""


@asynccontextmanager
async def promoting(directory: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`headrace-trainer promote`, against the gate's advice."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer", "promote", "api-v2", "--json"),
        *("--adapters", str(directory / "adapters"), "--record", str(directory / "record")),
        *("--settings", str(directory / "promotion.yaml"), "--proxy", url),
        *("--force", "--reason", "to see it fail"),
        stdout=asyncio.subprocess.PIPE,
        cwd=SHIPPED.parent,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_damaged_adapter_is_rolled_back_and_no_client_notices(tmp_path: Path):
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "api-v1").symlink_to(SHIPPED / "api-v1")
    champions.appoint(adapters, "api", "api-v1", "test")
    await damaged(adapters)
    (tmp_path / "promotion.yaml").write_text(SETTINGS)
    teacher, is_over = Teacher(), asyncio.Event()

    async with (
        reachable(teacher),
        serving(parse(routes(teacher, adapters), tmp_path, {})) as url,
        AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as openai,
        asyncio.TaskGroup() as tasks,
        promoting(tmp_path, url) as command,
    ):
        client = Client(openai)
        tasks.create_task(client.ask_until(is_over))
        told, _ = await command.communicate()
        ended = time.monotonic()
        await client.alone.wait()
        gone = time.monotonic() - ended
        is_over.set()

    counts = {side: client.sides.count(side) for side in sorted(set(client.sides))}
    last = msgspec.json.decode(told.splitlines()[-1])
    print(f"\n{last['reason']}; {counts}; alone {gone:.1f} s after the decision")
    assert command.returncode == 20
    assert "api-v2 is worse" in last["reason"]
    assert counts["canary:api-v2"] < 30
    assert champions.read(adapters).serving == {"api": "api-v1"}
    assert client.adapters[-1] == "api-v1"
