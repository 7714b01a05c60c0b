"""The embedded engine and an Azure resource, each the other's shadow; and a budget that is kept
through a kill."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import AsyncAzureOpenAI

from proxy.config import parse
from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import read_segment, segments
from proxy.protocol.shadowed import Shadowed
from tests.scripted import ScriptedCloud, answer, chunk, completion, stream, usage_chunk
from tests.serving import serving
from tests.test_main import served
from tests.test_shadow import settled
from tests.wire import TOOLS, ask, send

SAFE = {"hate": {"filtered": False, "severity": "safe"}}
FILTERED = [{"prompt_index": 0, "content_filter_results": SAFE}]


def azure_answer(text: str) -> bytes:
    """A completion as Azure sends it, with what its content filter found."""
    whole: Any = completion({"role": "assistant", "content": text, "refusal": None})
    whole["choices"][0]["content_filter_results"] = SAFE
    return answer(
        {**whole, "prompt_filter_results": FILTERED, "system_fingerprint": "fp_1"},
        "apim-request-id: 1",
        "x-ms-region: Sweden Central",
    )


def azure_stream(text: str) -> list[Any]:
    """The same as a stream: the first chunk has no choices."""
    first: Any = usage_chunk(0, 0) | {"usage": None, "prompt_filter_results": FILTERED}
    return stream(
        first,
        chunk({"role": "assistant", "content": text}),
        chunk({}, "stop"),
        usage_chunk(9, 3),
    )


def routes(cloud: ScriptedCloud) -> str:
    """`tools` is answered here, in Azure's shadow; `chat` by Azure, in ours."""
    return f"""
version: 1
models: [gpt-4o]
backends:
  local: {{kind: embedded, base_model: smollm2-135m-instruct, preload: false}}
  azure:
    kind: azure
    endpoint: {cloud.base_url.removesuffix("/v1")}
    api_key: key
    models: {{gpt-4o: our deployment}}
domains:
  tools: {{plan: [local], shadow: {{to: azure, share: 1, budget_usd_per_day: 1}}}}
  chat: {{plan: [azure], shadow: {{to: local, share: 1}}}}
defaults: {{tools: tools, chat: chat}}
record: {{directory: record}}
"""


async def test_each_is_the_other_s_shadow(cloud: ScriptedCloud, tmp_path: Path):
    pytest.importorskip("openvino_genai", reason="needs the embedded extra")
    cloud.plays(azure_answer("No need."))
    cloud.plays(*azure_stream("Good day."))

    async with serving(parse(routes(cloud), tmp_path, {})) as url:
        client = AsyncAzureOpenAI(
            azure_endpoint=url.removesuffix("/v1"),
            api_key="any",
            api_version="2024-10-21",
            max_retries=0,
        )
        messages: Any = [{"role": "user", "content": "Say hello."}]
        called = await client.chat.completions.create(
            model="gpt-4o", messages=messages, tools=msgspec.json.decode(TOOLS), max_tokens=12
        )
        await settled(url, 1, "tools")
        chunks = [
            piece
            async for piece in await client.chat.completions.create(
                model="gpt-4o", messages=messages, stream=True, max_tokens=12
            )
        ]
        told = await settled(url, 1, "chat")

    records = [record for path in segments(tmp_path / "record") for record in read_segment(path)]
    exchanges = {one.domain: one for one in records if isinstance(one, Exchange)}
    shadows = {one.domain: one for one in records if isinstance(one, Shadowed)}
    assert called.id == exchanges["tools"].id == shadows["tools"].exchange
    assert chunks[-1].id == exchanges["chat"].id == shadows["chat"].exchange
    assert [one.attempts[0].backend for one in exchanges.values()] == ["local", "azure"]
    assert shadows["tools"].attempt.answer.text == "No need."
    assert shadows["tools"].attempt.cost_usd == pytest.approx(2.75e-5)
    assert shadows["chat"].attempt.backend == "local"
    assert shadows["chat"].attempt.usage.completion_tokens <= 12
    assert told["outcomes"] == {"completed": 1}
    assert [request.target for request in cloud.requests] == [
        "/openai/deployments/our%20deployment/chat/completions?api-version=2024-10-21"
    ] * 2


async def test_budget_is_kept_through_a_kill(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(azure_answer("hi"))
    path = tmp_path / "routes.yaml"
    path.write_text(
        "version: 1\nmodels: [gpt-4o]\nbackends:\n"
        f"  first: {{kind: openai, base_url: '{cloud.base_url}'}}\n"
        f"  second: {{kind: openai, base_url: '{cloud.base_url}'}}\n"
        "domains: {all: {plan: [first], shadow:"
        " {to: second, share: 1, max_in_flight: 1, budget_usd_per_day: 0.00005}}}\n"
        "defaults: {tools: all, chat: all}\nrecord: {directory: record}\n"
    )

    async with served(path, "--log-level", "error") as server:
        await ask(server.base_url)
        before = await settled(server.base_url, 1)
        await server.stop(signal.SIGKILL)
    async with served(path, "--log-level", "error") as server:
        for _ in range(3):
            await ask(server.base_url)
        after = await settled(server.base_url, 3)

    assert before["spent_usd"] == pytest.approx(2.75e-5, abs=1e-6)
    assert (after["outcomes"], after["dropped"]) == ({"completed": 1}, {"over_budget": 2})


async def test_server_stops_at_once_while_its_shadows_hang(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(azure_answer("hi"))
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    path = tmp_path / "routes.yaml"
    path.write_text(
        "version: 1\nmodels: [gpt-4o]\nbackends:\n"
        f"  first: {{kind: openai, base_url: '{cloud.base_url}'}}\n"
        f"  second: {{kind: openai, base_url: 'http://127.0.0.1:{port}/v1'}}\n"
        "domains: {all: {plan: [first], shadow: {to: second, share: 1}}}\n"
        "defaults: {tools: all, chat: all}\nrecord: {directory: record}\n"
    )

    async with served(path, "--log-level", "error") as server:
        statuses = [(await ask(server.base_url)).status for _ in range(20)]
        told = (await send("GET", server.base_url.replace("/v1", "/ready"))).json
        code = await server.stop()
    silent.close()

    assert (code, statuses) == (0, [200] * 20)
    assert told["shadows"]["all"]["in_flight"] == 8
    records = [record for path in segments(tmp_path / "record") for record in read_segment(path)]
    assert [type(record) for record in records] == [Exchange] * 20
