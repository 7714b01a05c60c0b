"""Recorded responses of real TGI servers, 1.4 to 3.3, as a client of ours sees them."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.backends import http
from proxy.backends.tgi.dialect import Tgi
from proxy.protocol.formats.base import END
from tests.engines.fronting import CLOUD, configuration, unproven, vocabulary
from tests.engines.tgi_replay import (
    RECORDINGS,
    Replay,
    needs_recordings,
    on_the_wire,
    recorded,
    replaying,
    text_of,
)
from tests.scripted import answer, completion, scripted_cloud
from tests.wire import Response, ask, events_of

pytestmark = needs_recordings

TOOLS = "snapshots/test_tools_llama/test_flash_llama_"
BROOKLYN = {"location": "Brooklyn, NY", "format": "fahrenheit"}
CALLS = {
    f"{TOOLS}grammar_tools_nostream.json": BROOKLYN,
    f"{TOOLS}grammar_tools_auto_nostream.json": BROOKLYN,
    f"{TOOLS}grammar_tools_choice_nostream.json": BROOKLYN,
    f"{TOOLS}grammar_tools_choice_stream.json": BROOKLYN,
    f"{TOOLS}grammar_tools_openai.json": BROOKLYN,
    "legacy/v3.1.0/test_flash_llama_grammar_tools.json": "celsius",
    "legacy/v3.1.0/test_flash_llama_grammar_tools_auto.json": "celsius",
    "legacy/v3.1.0/test_flash_llama_grammar_tools_choice.json": "celsius",
}
"""Recording → arguments of its call, or the value of `format` among them."""
TEXTS = (
    f"{TOOLS}grammar_tools_insufficient_information_nostream.json",
    f"{TOOLS}grammar_tools_insufficient_information_stream.json",
    f"{TOOLS}grammar_tools_sea_creatures_stream_auto.json",
    f"{TOOLS}grammar_tools_sea_creatures_stream_none.json",
    f"{TOOLS}tool_reply_response.json",
    "snapshots/test_chat_llama/test_flash_llama_simple.json",
    "snapshots/test_completion_prompts/test_chat_hfhub_nousage.json",
    "snapshots/test_completion_prompts/test_chat_hfhub_usage.json",
    "snapshots/test_completion_prompts/test_chat_openai_nousage.json",
    "snapshots/test_completion_prompts/test_chat_openai_usage.json",
    "snapshots/test_completion_prompts/test_flash_llama_completion_stream_usage.json",
    "snapshots/test_continue_final_message/test_llama_completion_single_prompt.json",
    "snapshots/test_continue_final_message/test_llama_completion_single_prompt_continue.json",
    "snapshots/test_grammar_response_format_llama/test_grammar_response_format_llama_json.json",
    "snapshots/test_json_schema_constrain/test_json_schema_basic.json",
    "snapshots/test_json_schema_constrain/test_json_schema_complex.json",
    "snapshots/test_json_schema_constrain/test_json_schema_stream.json",
)
LORA = "snapshots/test_lora_mistral/test_lora_mistral_"
GENERATED = (
    f"{LORA}with_customer_support_adapter.json",
    f"{LORA}with_dbpedia_adapter.json",
    f"{LORA}without_adapter.json",
    f"{LORA}without_customer_support_adapter.json",
)


@asynccontextmanager
async def fronting(replay: Replay) -> AsyncIterator[str]:
    """A proxy in front of a replayed TGI, with a cloud behind."""
    async with replaying(replay), scripted_cloud() as cloud:
        cloud.plays(answer(completion({"role": "assistant", "content": CLOUD})))
        async with unproven(configuration("tgi-chat", replay.url, cloud.base_url, {})) as url:
            yield url


def request_of(name: str) -> dict[str, Any]:
    """The request that the recording answered, as an OpenAI client would send it."""
    requests = recorded("requests.json")
    found = requests.get(name.removeprefix("snapshots/"), requests[_LIKE])["body"]
    fields = {
        key: found[key] for key in ("messages", "tools", "max_tokens", "seed") if key in found
    }
    if isinstance(found.get("tool_choice"), str) and found["tool_choice"] == "get_current_weather":
        choice = {"type": "function", "function": {"name": found["tool_choice"]}}
        return {"tools": None, **fields, "tool_choice": choice}
    return {"tools": None, **fields}


_LIKE = "test_tools_llama/test_flash_llama_grammar_tools_nostream.json"


async def asked(name: str, recording: Any) -> Response:
    async with fronting(Replay(recording)) as url:
        return await ask(url, **request_of(name))


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize("shaped", [on_the_wire, copy.copy], ids=["wire", "saved"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_recorded_call_reaches_the_client_in_openais_form(name, shaped):
    answered = await asked(name, shaped(recorded(name)))

    (choice,) = answered.json["choices"]
    (call,) = choice["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    assert call["function"]["name"] == "get_current_weather"
    assert CALLS[name] in (arguments, arguments["format"])
    assert set(call["function"]) == {"name", "arguments"}
    assert call["id"].startswith("call_")
    assert choice["finish_reason"] == "tool_calls"
    assert answered.json["model"] == "gpt-4o"
    assert answered.json["id"].startswith("chatcmpl-")


async def test_a_streamed_call_is_sent_with_its_name_once():
    name = f"{TOOLS}grammar_tools_openai.json"
    async with fronting(Replay(on_the_wire(recorded(name)))) as url:
        events = [event async for event in events_of(url, **request_of(name))]

    deltas = [c for e in events for ch in e["choices"] for c in ch["delta"].get("tool_calls", ())]
    assert [d["function"]["name"] for d in deltas if "name" in d["function"]] == [
        "get_current_weather"
    ]
    assert json.loads("".join(d["function"]["arguments"] for d in deltas)) == BROOKLYN
    assert [c["finish_reason"] for e in events for c in e["choices"]][-1] == "tool_calls"


@pytest.mark.parametrize(
    ("name", "leaked"),
    [
        ("legacy/v3.1.0/test_flash_llama_grammar_tools_stream.json", "<|eot_id|>"),
        ("legacy/v2.0.4/test_flash_llama_grammar_tools_stream.json", "</s>"),
    ],
)
async def test_an_older_streams_call_is_read_though_it_is_no_list_and_its_end_leaks(name, leaked):
    last = recorded(name)
    function = last["choices"][0]["delta"]["tool_calls"]["function"]
    text = '{"function": {"_name": "get_current_weather", "location": "Oslo", "format": "celsius"}}'
    before = [_with_arguments(last, text[at : at + 7]) for at in range(0, len(text), 7)]
    assert function["arguments"] == leaked

    answered = await asked(name, [*before, last])

    (call,) = answered.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_current_weather"
    assert json.loads(call["function"]["arguments"]) == {"location": "Oslo", "format": "celsius"}


def _with_arguments(chunk: Any, arguments: str) -> Any:
    copied = json.loads(json.dumps(chunk))
    copied["choices"][0]["delta"]["tool_calls"]["function"]["arguments"] = arguments
    copied["choices"][0]["finish_reason"] = None
    return copied


async def test_an_older_servers_call_that_says_none_fits_is_told_as_text():
    name = "legacy/v2.0.4/test_flash_llama_grammar_tools_insufficient_information.json"

    (choice,) = (await asked(name, recorded(name))).json["choices"]

    assert choice["message"]["content"].startswith("Cannot get current weather forecast")
    assert choice["finish_reason"] == "stop"


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("name", TEXTS)
async def test_a_recorded_text_reaches_the_client_whole(name, spaced):
    recording = recorded(name)
    async with fronting(Replay(on_the_wire(recording), spaced=spaced)) as url:
        answered = await ask(url, **request_of(name))

    (choice,) = answered.json["choices"]
    assert choice["message"]["content"] == text_of(recording) != ""
    last = recording[-1] if isinstance(recording, list) else recording
    counted = last.get("usage") or {
        "completion_tokens": answered.json["usage"]["completion_tokens"]
    }
    assert answered.json["usage"]["completion_tokens"] == counted["completion_tokens"]
    assert choice["finish_reason"] in ("stop", "length")


# ---------------------------------------------------------------- raw generation


@pytest.mark.parametrize("name", GENERATED)
async def test_the_ids_of_a_recorded_generation_are_those_that_a_canary_is_held_against(name):
    recording = recorded(name)
    async with replaying(Replay(recording)) as replay, http.Session(1) as session:
        ids = await Tgi(vocabulary(), END).greedy(session, replay.url, "dbpedia", [1, 42], 40)

    assert ids == [t["id"] for t in recording["details"]["tokens"]]
    assert replay.bodies[0]["parameters"]["adapter_id"] == "dbpedia"


# ---------------------------------------------------------------- errors

KINDS = {
    "overloaded, not streaming": CLOUD,
    "validation: too long": CLOUD,
    "validation: total tokens": CLOUD,
    "validation: top_p = 1": 400,
    "validation: 5 stop sequences": 400,
    "validation: schema the regex compiler refuses": CLOUD,
    "validation: schema without properties": CLOUD,
    "grammar disabled": CLOUD,
    "tools and response_format together": 400,
    "named tool absent": 400,
    "tool JSON cut by max_tokens": CLOUD,
    "generation failed (CUDA OOM, shard died ...)": CLOUD,
    "incomplete": CLOUD,
    "body is JSON but not the schema (axum Json rejection)": 400,
    "body is not JSON (axum)": 400,
    "no JSON content type (axum)": 400,
    "body over --payload-limit (2 MB default)": CLOUD,
    "--api-key set, header missing or wrong": CLOUD,
    "health down": CLOUD,
    "chat SSE error (HTTP status is already 200)": CLOUD,
}
"""Error → what the client sees: the cloud's answer, or a status. Those of `/generate_stream` and of
endpoints that we do not ask are left out."""


def error(name: str) -> Replay:
    cases = recorded("derived/error_and_info_cases.json")["cases"]
    case = next(case for case in cases if case["name"] == name)
    if "sse" in case:
        lines = [line.removeprefix("data: ") for line in case["sse"]]
        return Replay([json.loads(line) for line in lines if line != "[DONE]"])
    content_type = case.get("content_type", "text/plain").partition(";")[0]
    return Replay(case.get("body", case.get("text")), case["status"], content_type)


@pytest.mark.parametrize("name", KINDS)
async def test_an_error_goes_to_who_can_do_something_about_it(name):
    async with fronting(error(name)) as url:
        answered = await ask(url, tools=None)

    if KINDS[name] == CLOUD:
        assert answered.json["choices"][0]["message"]["content"] == CLOUD
    else:
        assert answered.status == KINDS[name]
        assert answered.json["error"]["type"] == "invalid_request_error"


def test_every_recording_of_a_chat_is_replayed():
    requests = recorded("requests.json")
    chats = {name for name in requests if requests[name]["path"] == "/v1/chat/completions"}

    assert chats == {
        name.removeprefix("snapshots/") for name in (*CALLS, *TEXTS) if name.startswith("snap")
    }
    assert (RECORDINGS / "snapshots").is_dir()
