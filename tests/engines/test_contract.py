"""The contract of local backends: what a client sees is the same, whichever engine answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from tests.engines.fronting import CLOUD, KINDS, Front, fronting
from tests.engines.toy import do
from tests.wire import Response, ask, body, events_of

BUS = {
    "type": "function",
    "function": {
        "name": "Buses_3_FindBus",
        "description": "Finds a bus.",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "seats": {"type": "integer"}},
            "required": ["to"],
        },
    },
}
OSLO = ("Buses_3_FindBus", {"to": "Oslo", "seats": 2})
LIMA = ("Buses_3_FindBus", {"to": "Lima"})
LETTERS = "Grüße aus 東京, 🌧 und 👩‍👩‍👧‍👦!"


@pytest.fixture(params=KINDS)
async def front(request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with fronting(request.param) as front:
        yield front


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def said(front: Front, text: str, **fields: object) -> Response:
    """The answer to a user who says this; without tools unless they are named."""
    return await ask(front.url, messages=user(text), **({"tools": None} | fields))


async def streamed(front: Front, text: str, **fields: object) -> list[Any]:
    fields = {"tools": None} | fields
    return [event async for event in events_of(front.url, messages=user(text), **fields)]


def text_of(events: list[Any]) -> str:
    deltas = [c["delta"] for event in events for c in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def calls_of(events: list[Any]) -> list[tuple[str, str]]:
    merged: dict[int, list[str]] = {}
    for event in events:
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                parts = merged.setdefault(call["index"], ["", ""])
                parts[0] += call["function"].get("name", "")
                parts[1] += call["function"]["arguments"]
    return [(name, arguments) for name, arguments in merged.values()]


def finish_of(events: list[Any]) -> list[str]:
    reasons = [c["finish_reason"] for event in events for c in event["choices"]]
    return [reason for reason in reasons if reason]


# ---------------------------------------------------------------- answers


async def test_chat_is_answered_with_text(front):
    answered = await said(front, do(say="Hello there."))

    (choice,) = answered.json["choices"]
    assert choice["message"]["content"] == "Hello there."
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]
    usage = answered.json["usage"]
    assert usage["completion_tokens"] > 2
    assert usage["prompt_tokens"] > usage["completion_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_tool_call_is_made_by_the_domains_adapter(front):
    answered = await said(front, do(calls=[OSLO]), tools=[BUS])

    (choice,) = answered.json["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {
        "name": "Buses_3_FindBus",
        "arguments": '{"to": "Oslo", "seats": 2}',
    }
    assert call["id"].startswith("call_")
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert answered.headers["x-headrace-adapter"] == "bookings-v1"
    assert front.cloud.requests == []


async def test_calls_of_one_answer_have_ids_of_their_own(front):
    ids = [
        (await said(front, do(calls=[OSLO]), tools=[BUS])).json["choices"][0]["message"][
            "tool_calls"
        ][0]["id"]
        for _ in range(2)
    ]

    assert ids[0] != ids[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_several_calls_are_made_where_the_format_has_them(front, stream):
    if front.kind == "tgi-chat":
        pytest.skip("TGI's chat makes one call at most")

    events = await streamed(front, do(calls=[OSLO, LIMA]), tools=[BUS])

    assert calls_of(events) == [
        ("Buses_3_FindBus", '{"to": "Oslo", "seats": 2}'),
        ("Buses_3_FindBus", '{"to": "Lima"}'),
    ]
    assert finish_of(events) == ["tool_calls"]


async def test_a_call_that_breaks_its_schema_is_left_to_the_cloud(front):
    answered = await said(front, do(calls=[("Buses_3_FindBus", {"to": 7})]), tools=[BUS])

    assert answered.json["choices"][0]["message"]["content"] == CLOUD


@pytest.mark.parametrize("text", [do(say="It rains in Oslo."), do(say=LETTERS), "Say something."])
async def test_a_streamed_answer_says_what_a_whole_one_says(front, text):
    whole = (await said(front, text)).json
    events = await streamed(front, text, stream_options={"include_usage": True})

    assert text_of(events) == whole["choices"][0]["message"]["content"] != ""
    assert finish_of(events) == [whole["choices"][0]["finish_reason"]]
    assert [e["usage"] for e in events if e.get("usage")] == [whole["usage"]]


async def test_a_streamed_call_is_what_a_whole_one_is(front):
    whole = (await said(front, do(calls=[OSLO]), tools=[BUS])).json
    events = await streamed(front, do(calls=[OSLO]), tools=[BUS])

    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert calls_of(events) == [(call["function"]["name"], call["function"]["arguments"])]


async def test_text_streams_in_many_pieces(front):
    events = await streamed(front, do(say="One two three four five six seven."))

    assert len([e for e in events if e["choices"] and e["choices"][0]["delta"].get("content")]) > 4


async def test_letters_of_several_bytes_survive_being_cut_anywhere(front):
    front.engine.shreds = True

    assert text_of(await streamed(front, do(say=LETTERS))) == LETTERS


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("stop", ["rains", ["snow", "rains in"]])
async def test_an_answer_ends_before_its_stop_string(front, stop):
    text = do(say="Today it rains in Oslo, and tomorrow too.")

    whole = (await said(front, text, stop=stop)).json["choices"][0]
    events = await streamed(front, text, stop=stop)

    assert whole["message"]["content"] == text_of(events) == "Today it "
    assert [whole["finish_reason"]] == finish_of(events) == ["stop"]


async def test_a_stop_string_may_end_inside_a_token(front):
    answered = await said(front, do(say="Strawberries everywhere"), stop="wberr")

    assert answered.json["choices"][0]["message"]["content"] == "Stra"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_has_no_more_tokens_than_asked_for(front, field):
    answered = await said(front, do(say="one two three four five six"), **{field: 3})

    assert answered.json["choices"][0]["finish_reason"] == "length"
    assert answered.json["usage"]["completion_tokens"] == 3
    assert answered.json["choices"][0]["message"]["content"] == "one two three"


async def test_a_call_that_max_tokens_cuts_is_left_to_the_cloud(front):
    answered = await said(front, do(calls=[OSLO]), tools=[BUS], max_tokens=12)

    assert answered.json["choices"][0]["message"]["content"] == CLOUD


# ---------------------------------------------------------------- requests that OpenAI allows


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": "x"},
        {"stop": ["a!", "b!", "c!", "d!", "e!"]},
        {"stream": None},
        {"stream_options": None},
        {"logit_bias": {}},
        {"response_format": {"type": "text"}},
        {"top_p": 1},
        {"top_p": 0},
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9, "seed": -5},
        {"seed": 2**70},
        {"presence_penalty": -2},
        {"frequency_penalty": 0.5},
        {"max_tokens": 50, "max_completion_tokens": 50},
        {"tools": []},
        {"tools": None, "tool_choice": "none"},
        {"user": "me", "store": False, "metadata": {}},
    ],
    ids=str,
)
async def test_what_openai_allows_is_served(front, fields):
    message = {"model": "gpt-4o", "messages": user(do(say="Fine.")), "tools": None}
    sent = {name: value for name, value in (message | fields).items() if name != "tools" or value}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{front.url}/chat/completions", json=sent) as answered,
    ):
        told = await answered.json()

    assert (answered.status, front.engine.refusals, front.cloud.requests) == (200, [], [])
    assert told["choices"][0]["message"]["content"] == "Fine."


CONVERSATIONS = {
    "content null": [{"role": "assistant", "content": None}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    "a developer": [{"role": "developer", "content": "Be brief."}],
    "calls and their results": [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "Buses_3_FindBus", "arguments": '{"to": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "none"},
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_conversations_of_all_shapes_are_served(front, name):
    messages = [*user("Hi"), *CONVERSATIONS[name], *user(do(calls=[OSLO]))]

    answered = await ask(front.url, messages=messages, tools=[BUS])

    assert answered.json["choices"][0]["finish_reason"] == "tool_calls"
    assert (front.engine.refusals, front.cloud.requests) == ([], [])


async def test_a_tool_without_parameters_is_served(front):
    now = {"type": "function", "function": {"name": "Clocks_1_Now"}}

    answered = await said(front, do(calls=[("Clocks_1_Now", {})]), tools=[now])

    (call,) = answered.json["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "Clocks_1_Now", "arguments": "{}"}


# ---------------------------------------------------------------- when things go wrong


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_engine_within_a_second(front, stream):
    front.engine.holds_after = 2
    sent = body(messages=user("Say something."), tools=None, stream=stream)

    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(f"{front.url}/chat/completions", json=sent))
        await front.engine.held.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async with asyncio.timeout(1):
        await front.engine.abandoned.wait()


async def test_an_answer_that_a_stop_string_ends_stops_the_engine(front):
    front.engine.holds_after = 6

    await said(front, do(say="one two three four five six seven eight"), stop="three")

    async with asyncio.timeout(1):
        await front.engine.abandoned.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_too_much_for_the_slots_goes_to_the_next_backend(kind):
    async with fronting(kind, max_in_flight=1) as front:
        front.engine.holds_after = 0
        first = asyncio.ensure_future(said(front, "Say something."))
        await front.engine.held.wait()

        second = await said(front, "Say something.")
        first.cancel()

    assert second.json["choices"][0]["message"]["content"] == CLOUD


@pytest.mark.parametrize("kind", ["tgi-native", "tgi-chat"])
async def test_an_engine_that_says_it_is_overloaded_is_left_for_the_next_backend(kind):
    async with fronting(kind) as front:
        front.engine.is_full = True

        answered = await said(front, "Say something.")

    assert answered.json["choices"][0]["message"]["content"] == CLOUD
    assert answered.headers["x-headrace-fallback-reason"] == "backend_overloaded"


async def test_an_engine_that_dies_before_a_whole_answer_is_left_for_the_next_backend(front):
    front.engine.dies_after = 3

    answered = await said(front, "Say something.")

    assert answered.json["choices"][0]["message"]["content"] == CLOUD


async def test_an_engine_that_dies_in_the_middle_of_a_stream_ends_it_with_an_error(front):
    front.engine.dies_after = 5

    events = await streamed(front, do(say="one two three four five six seven eight nine"))

    assert events[-1]["error"]["code"] == "backend_unavailable"
    assert text_of([e for e in events if "choices" in e]).startswith("one two")
    assert front.cloud.requests == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "held", "code"),
    [
        ({"first_token_s": 0.2}, 0, "timeout_first_token"),
        ({"stall_s": 0.2}, 4, "timeout_stall"),
        ({"total_s": 0.3}, 4, "timeout_total"),
    ],
)
async def test_each_wait_that_is_too_long_has_an_error_of_its_own(kind, settings, held, code):
    async with fronting(kind, **settings) as front:
        front.engine.holds_after = held

        answered = await said(front, "Say something.")

    assert answered.json["choices"][0]["message"]["content"] == CLOUD
    assert answered.headers["x-headrace-fallback-reason"] == code
