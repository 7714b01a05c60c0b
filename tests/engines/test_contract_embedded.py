"""The contract of local backends, as far as a model that cannot be told what to say allows.

That slots are counted, and that a client who leaves frees its own: tests/backends/.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

pytest.importorskip("openvino_genai", reason="needs the embedded extra")

from proxy.config import parse
from tests.engines.fronting import CLOUD, MODEL, ROOT
from tests.scripted import answer, completion, scripted_cloud
from tests.serving import serving
from tests.wire import ask, events_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER = {
    "type": "function",
    "function": {
        "name": "Weather_1_GetWeather",
        "description": "Retrieves the weather forecast for a city on a date (YYYY-MM-DD).",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "date": {"type": "string"}},
            "required": ["city", "date"],
        },
    },
}
RIVERS = [{"role": "user", "content": "Name three rivers."}]
LETTERS = [{"role": "user", "content": "Antworte auf Deutsch: Grüße aus 東京 🌧?"}]
OSLO = [{"role": "user", "content": "What is the weather in Oslo on 2024-05-01?"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    """A proxy with an embedded engine and a cloud behind it."""
    async with scripted_cloud() as cloud:
        cloud.plays(answer(completion({"role": "assistant", "content": CLOUD})))
        text = f"""
version: 1
models: [gpt-4o]
backends:
  local: {{kind: embedded, base_model: {MODEL}, preload: false}}
  cloud: {{kind: openai, base_url: "{cloud.base_url}"}}
domains:
  bookings: {{tools: ["*_[0-9]_*"], plan: [local, cloud]}}
  chat: {{plan: [local, cloud]}}
defaults: {{tools: bookings, chat: chat}}
"""
        async with serving(parse(text, ROOT, {})) as url:
            yield url


async def text_of(url: str, **fields: object) -> str:
    """The text of a streamed answer."""
    events = [event async for event in events_of(url, tools=None, **fields)]
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


@pytest.mark.parametrize("messages", [RIVERS, LETTERS])
async def test_a_streamed_answer_says_what_a_whole_one_says(url, messages):
    whole = await ask(url, messages=messages, tools=None, max_tokens=24)

    (choice,) = whole.json["choices"]
    assert await text_of(url, messages=messages, max_tokens=24) == choice["message"]["content"]


async def test_an_answer_has_no_more_tokens_than_asked_for(url):
    answered = (await ask(url, messages=RIVERS, tools=None, max_tokens=5)).json

    assert answered["usage"]["completion_tokens"] == 5
    assert answered["choices"][0]["finish_reason"] == "length"


async def test_an_answer_ends_before_its_stop_string(url):
    whole = (await ask(url, messages=RIVERS, tools=None, max_tokens=24)).json
    said = whole["choices"][0]["message"]["content"]
    stop = said[10:14]

    stopped = (await ask(url, messages=RIVERS, tools=None, max_tokens=24, stop=stop)).json

    assert stopped["choices"][0]["message"]["content"] == said[: said.index(stop)]
    assert stopped["choices"][0]["finish_reason"] == "stop"


async def test_a_tool_call_is_made_by_the_domains_adapter(url):
    answered = await ask(url, messages=OSLO, tools=[WEATHER])

    (call,) = answered.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "Weather_1_GetWeather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo", "date": "2024-05-01"}
    assert answered.json["choices"][0]["finish_reason"] == "tool_calls"
    assert answered.headers["x-headrace-adapter"] == "bookings-v1"
