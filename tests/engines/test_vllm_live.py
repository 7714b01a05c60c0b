"""The vLLM backend before a real vLLM: the shipped adapters, loaded at start and while it runs."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.backends import http
from proxy.backends.dialect import Generation, Prompt, Sampling
from proxy.backends.vllm.dialect import Vllm
from proxy.errors import AdapterMissing, BackendError
from proxy.protocol.adapter import Adapter
from proxy.protocol.formats import FORMATS
from proxy.protocol.openai import Function
from tests.engines.fronting import ROOT, assembled, configuration, shipped, vocabulary
from tests.engines.vllm_live import Live, needs_vllm, running
from tests.wire import Response, ask, events_of

pytestmark = needs_vllm

END_ID = 2
AGREES = 8
"""Tokens of a canary that must come out, as the embedded engine has it."""
CLOSED = "http://127.0.0.1:1"


def tool(name: str, description: str, **properties: str) -> dict[str, object]:
    """A function all of whose parameters (name → JSON type) are required."""
    schema = {
        "type": "object",
        "required": list(properties),
        "properties": {key: {"type": kind} for key, kind in properties.items()},
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


WEATHER = tool(
    "Weather_1_GetWeather",
    "Retrieves the weather forecast for a city on a date (YYYY-MM-DD).",
    city="string",
    date="string",
)
API = (
    tool("getallcountry", "Fetches a list of all countries, page by page.", page="integer"),
    tool(
        "schedule_by_date",
        "Gets the schedule of a sport's events on a given date (YYYY-MM-DD).",
        date="string",
        sport_id="integer",
    ),
    tool(
        "least_common_multiple",
        "Computes the least common multiple of two positive integers.",
        a="integer",
        b="integer",
    ),
)
OSLO = "What is the weather in Oslo on 2024-05-01?"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("vllm"), "bookings-v1", "api-v1") as live:
        yield live


@asynccontextmanager
async def fronting(live: Live, mode: str = "native") -> AsyncIterator[str]:
    patience = {"first_token_s": 120, "stall_s": 60, "context": 4096}
    config = configuration(f"vllm-{mode}", live.url, CLOSED, patience)
    async with assembled(config, shipped()) as url:
        yield url


def dialect() -> Vllm:
    return Vllm(base="base", adapters_there=str(ROOT / "adapters"), end=END_ID)


async def said(url: str, text: str, *tools: object, **fields: object) -> Response:
    messages = [{"role": "user", "content": text}]
    return await ask(url, messages=messages, tools=list(tools) or None, **fields)


def call_of(answered: Response) -> tuple[str, dict[str, object]]:
    (call,) = answered.json["choices"][0]["message"]["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("id", ["api-v1", "bookings-v1"])
async def test_a_shipped_adapter_passes_its_canary_and_the_base_does_not(live, id):
    canary = shipped().by_id[id].canary
    async with http.Session(2) as session:
        ids = await dialect().greedy(session, live.url, id, canary.prompt, AGREES)
        base = await dialect().greedy(session, live.url, None, canary.prompt, AGREES)

    assert ids == canary.expected[:AGREES]
    assert base != ids


async def test_an_adapter_that_is_not_loaded_is_missing(live):
    prompt = Prompt("Hi", vocabulary().encode("Hi"))
    asked = Generation(adapter="geo-v7", prompt=prompt, sampling=Sampling(max_tokens=4))
    async with http.Session(2) as session:
        with pytest.raises(AdapterMissing):
            async for _ in dialect().generate(session, live.url, asked):
                pass


async def test_a_third_adapter_is_loaded_and_unloaded_while_requests_run(live, tmp_path):
    third = renamed(shipped().by_id["api-v1"], "api-v2", tmp_path)
    there = Vllm(base="base", adapters_there=str(tmp_path), end=END_ID)
    async with fronting(live) as url, http.Session(2) as session:
        asked = [asyncio.ensure_future(said(url, OSLO, WEATHER)) for _ in range(6)]
        await asyncio.sleep(0.5)
        await there.load(session, live.url, third)
        await there.load(session, live.url, third)
        listed = await there.adapters(session, live.url)
        ids = await there.greedy(session, live.url, "api-v2", third.canary.prompt, AGREES)
        answers = await asyncio.gather(*asked)
        await there.unload(session, live.url, "api-v2")
        await there.unload(session, live.url, "api-v2")
        after = await there.adapters(session, live.url)

    assert listed == {"api-v1", "api-v2", "bookings-v1"}
    assert after == {"api-v1", "bookings-v1"}
    assert ids == third.canary.expected[:AGREES]
    assert {call_of(answer)[0] for answer in answers} == {"Weather_1_GetWeather"}


async def test_an_adapter_that_is_not_on_disk_is_not_loaded(live, tmp_path):
    missing = msgspec.structs.replace(shipped().by_id["api-v1"], path=tmp_path / "nowhere")
    asked = msgspec.structs.replace(missing.manifest, id="api-v9")
    async with http.Session(2) as session:
        with pytest.raises(BackendError):
            await dialect().load(
                session, live.url, msgspec.structs.replace(missing, manifest=asked)
            )


def renamed(adapter: Adapter, id: str, folder: Path) -> Adapter:
    """A copy of a bundle under another id."""
    shutil.copytree(adapter.path, folder / id)
    manifest = msgspec.structs.replace(adapter.manifest, id=id)
    return msgspec.structs.replace(adapter, path=folder / id, manifest=manifest)


# ---------------------------------------------------------------- answers


async def test_each_domains_adapter_makes_its_call(live):
    async with fronting(live) as url:
        booked = await said(url, OSLO, WEATHER)
        called = await said(url, "What is the schedule of sport 4 on 2025-03-07?", *API)

    assert call_of(booked) == ("Weather_1_GetWeather", {"city": "Oslo", "date": "2024-05-01"})
    assert call_of(called) == ("schedule_by_date", {"date": "2025-03-07", "sport_id": 4})
    assert booked.headers["x-headrace-adapter"] == "bookings-v1"
    assert called.headers["x-headrace-adapter"] == "api-v1"


async def test_chat_mode_makes_a_call_with_the_servers_own_template_and_parser(live):
    async with fronting(live, "chat") as url:
        answered = await said(url, OSLO, WEATHER)

    assert call_of(answered)[0] == "Weather_1_GetWeather"


@pytest.mark.parametrize("format", ["structured", "hermes"])
async def test_a_base_model_that_must_call_writes_a_call_that_fits_the_schema(live, format):
    """The base has learnt no format: that its call fits is the grammar's doing."""
    schema = msgspec.Raw(b'{"type":"object","properties":{"n":{"enum":[17]}},"required":["n"]}')
    constraint = FORMATS[format].constraint([Function("f", None, schema)], True, many=False)
    text = "<|im_start|>user\nCall f.<|im_end|>\n<|im_start|>assistant\n"
    asked = Generation(
        adapter=None,
        prompt=Prompt(text, vocabulary().encode(text)),
        sampling=Sampling(max_tokens=60),
        constraint=constraint,
    )
    async with http.Session(2) as session:
        outputs = [o async for o in dialect().generate(session, live.url, asked)]

    (call,) = FORMATS[format].parse("".join(getattr(o, "text", "") for o in outputs)).calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("f", {"n": 17})
    assert outputs[-1].prompt_tokens == len(asked.prompt.ids)


async def test_a_streamed_answer_says_what_a_whole_one_says(live):
    async with fronting(live) as url:
        whole = (await said(url, "Name three rivers.", max_tokens=30)).json
        messages = [{"role": "user", "content": "Name three rivers."}]
        events = [e async for e in events_of(url, messages=messages, tools=None, max_tokens=30)]

    text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
    assert text == whole["choices"][0]["message"]["content"] != ""
    assert whole["usage"]["completion_tokens"] <= 30


async def test_a_client_that_leaves_frees_the_engine(live):
    asked = {"messages": [{"role": "user", "content": "Count to a thousand."}], "tools": None}
    async with fronting(live) as url:
        leaving = asyncio.ensure_future(ask(url, **asked, max_tokens=2000, temperature=1.5))
        await running_requests(live, 1)
        leaving.cancel()
        async with asyncio.timeout(30):
            await running_requests(live, 0)


async def running_requests(live: Live, wanted: int) -> None:
    """Wait until so many requests run, as the server's own metrics say."""
    async with http.Session(2) as session:
        while True:
            _, body = await http.get(session, f"{live.url}/metrics")
            lines = [x for x in body.decode().splitlines() if x.startswith("vllm:num_requests_run")]
            if sum(float(line.rpartition(" ")[2]) for line in lines) == wanted:
                return
            await asyncio.sleep(0.05)
