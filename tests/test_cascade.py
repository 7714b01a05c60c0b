from __future__ import annotations

import pytest

from proxy.backends.base import Call, Event, Finish, Text
from proxy.cascade import Turns, verified
from proxy.errors import BackendUnavailable, InvalidAnswer
from proxy.protocol.openai import ChatRequest, parse_request
from proxy.recording import Tape
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import Cut, Pause, ScriptedCloud, chunk, completion, stream
from tests.serving import Engine, call, finish, serving_with, settings, text
from tests.wire import TOOLS, ask, cloud_backend, events_of

GOOD = call("ping", '{"host":"a"}')
BAD = call("ping", '{"host":1}')
CLOUD_CALL = {
    "role": "assistant",
    "content": "From the cloud.",
    "tool_calls": [
        {
            "index": 0,
            "id": "call_cloud",
            "type": "function",
            "function": {"name": "ping", "arguments": '{"host":"b"}'},
        }
    ],
}
REQUEST = parse_request(
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"tools":' + TOOLS + b"}"
)


# ---------------------------------------------------------------- decisions, without a network


@pytest.mark.parametrize(
    ("sent", "invalid", "unavailable"),
    [
        ([], True, True),
        ([Text("a")], True, False),
        ([Text("a"), GOOD], False, False),
        ([GOOD], False, False),
        ([GOOD, Text("a")], False, False),
        ([Text("a"), finish()], False, False),
    ],
)
def test_what_the_client_saw_decides_who_may_follow(sent, invalid, unavailable):
    turns = Turns()

    for event in sent:
        turns.sent(event)

    assert turns.may_follow(InvalidAnswer("", "unknown_tool")) is invalid
    assert turns.may_follow(BackendUnavailable("")) is unavailable


async def test_text_passes_at_once_and_calls_wait_for_the_end():
    events = verified(each(Text("a"), GOOD, Text("b"), finish()), REQUEST, "enforce", tape())

    assert [type(event) async for event in events] == [Text, Text, Call, Finish]


async def test_invalid_call_is_never_given_out_when_enforced():
    events = verified(each(Text("a"), BAD, finish()), REQUEST, "enforce", tape())

    assert await anext(events) == Text("a")
    with pytest.raises(InvalidAnswer, match="ping") as caught:
        await anext(events)
    assert caught.value.reason == "schema_violation"


async def test_invalid_call_is_given_out_and_recorded_when_observed():
    observed = tape()

    events = [e async for e in verified(each(BAD, finish()), REQUEST, "observe", observed)]

    observed.end("completed")
    attempt = observed.attempt(observed.heard())
    assert events[0] == BAD
    assert (attempt.outcome, attempt.reason) == ("invalid", "schema_violation")


async def test_nothing_is_held_when_verification_is_off():
    events = verified(each(BAD, Text("a"), finish()), REQUEST, "off", tape())

    assert [type(event) async for event in events] == [Call, Text, Finish]


async def test_answer_that_breaks_the_response_format_is_invalid():
    asked = request_for(b'"response_format":{"type":"json_object"}')

    events = verified(each(Text("no JSON"), finish()), asked, "enforce", tape())

    with pytest.raises(InvalidAnswer):
        [event async for event in events]


async def test_answer_cut_by_max_tokens_may_break_the_response_format():
    asked = request_for(b'"response_format":{"type":"json_object"}')

    events = verified(each(Text('{"a'), finish("length")), asked, "enforce", tape())

    assert [type(event) async for event in events] == [Text, Finish]


def request_for(fields: bytes) -> ChatRequest:
    return parse_request(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],' + fields + b"}"
    )


def tape() -> Tape:
    return Tape("primary", "local", None, None)


async def each(*events: Event):
    for event in events:
        yield event


# ---------------------------------------------------------------- whole answers


async def test_valid_call_is_answered_by_the_first_backend(cloud: ScriptedCloud):
    local = Engine("local", [GOOD, finish()])

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url)

    message = response.json["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "ping", "arguments": '{"host":"a"}'}
    assert response.headers["x-headrace-backend"] == "local"
    assert response.headers["x-headrace-attempts"] == "1"
    assert "x-headrace-fallback-reason" not in response.headers
    assert cloud.requests == []


async def test_invalid_call_is_answered_by_the_next_backend(cloud: ScriptedCloud):
    local = Engine("local", [Text("I will ping."), BAD, finish()])
    body = completion(CLOUD_CALL, "tool_calls")
    cloud.plays(scripted.answer(body))

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.json == body
    assert response.headers["x-headrace-backend"] == "cloud"
    assert response.headers["x-headrace-attempts"] == "2"
    assert response.headers["x-headrace-fallback-reason"] == "schema_violation"


async def test_answer_of_a_cloud_passes_byte_for_byte(cloud: ScriptedCloud):
    odd = (
        b'{ "id":"x",\n "model":"gpt-4o-2024", "unknown":1.10,"n":123456789012345678901234567890 }'
    )
    cloud.plays(scripted.answer(odd))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.content == odd


async def test_mapped_model_is_renamed_back_in_the_answer(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))
    mapped = cloud_backend(cloud, models={"headrace": "gpt-4o-mini"})

    async with serving_with(settings("cloud"), mapped) as url:
        response = await ask(url, model="headrace")

    assert cloud.requests[0].json["model"] == "gpt-4o-mini"
    assert response.json["model"] == "headrace"


async def test_invalid_call_that_nobody_can_mend_is_an_error():
    local = Engine("local", [BAD, finish()])

    async with serving_with(settings("local"), local) as url:
        response = await ask(url)

    assert response.status == 502
    assert response.json["error"]["code"] == "invalid_answer"
    assert response.headers["x-should-retry"] == "false"


async def test_backend_that_is_down_is_followed_by_the_next(cloud: ScriptedCloud):
    local = Engine("local", [BackendUnavailable("gone")])
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.status == 200
    assert response.headers["x-headrace-fallback-reason"] == "backend_unavailable"


async def test_engine_that_dies_in_the_middle_of_a_whole_answer_is_followed(cloud: ScriptedCloud):
    local = Engine("local", [Text("I th"), BackendUnavailable("gone")])
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.json["choices"][0]["message"]["content"] == "hi"


async def test_request_that_a_cloud_finds_wrong_goes_to_nobody_else(cloud: ScriptedCloud):
    cloud.plays(scripted.error(400, "max_tokens is too large", "invalid_value"))
    local = Engine("local", [GOOD, finish()])

    async with serving_with(settings("cloud", "local"), cloud_backend(cloud), local) as url:
        response = await ask(url)

    assert response.status == 400
    assert response.json["error"]["message"] == "max_tokens is too large"
    assert local.asks == []


async def test_constraint_and_body_reach_the_backend():
    local = Engine("local", [GOOD, finish()])

    async with serving_with(settings("local"), local) as url:
        await ask(url, seed=7)

    assert local.asks[0].constrain is True
    assert b'"seed":7' in local.asks[0].body


# ---------------------------------------------------------------- streamed answers


async def test_text_streams_before_the_answer_is_whole(cloud: ScriptedCloud):
    local = Engine("local", [Text("At once."), Pause(60)])

    async with serving_with(settings("local"), local) as url:
        events = events_of(url)
        first = await anext(events)
        await events.aclose()

    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "At once."}


async def test_only_the_calls_of_the_next_backend_follow_a_text_that_was_sent(
    cloud: ScriptedCloud,
):
    local = Engine("local", [Text("I will ping."), BAD, finish()])
    cloud.plays(*stream(chunk(CLOUD_CALL), chunk({}, "tool_calls")))

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        deltas = [e["choices"][0]["delta"] async for e in events_of(url)]

    contents = [delta["content"] for delta in deltas if delta.get("content")]
    names = [c["function"]["name"] for d in deltas for c in d.get("tool_calls", []) if "id" in c]
    assert contents == ["I will ping."]
    assert names == ["ping"]


async def test_two_local_backends_make_one_clean_stream():
    first = Engine("first", [Text("I will ping."), BAD, finish()])
    second = Engine("second", [Text("Not to be seen."), GOOD, finish()])

    async with serving_with(settings("first", "second"), first, second) as url:
        events = [event async for event in events_of(url)]

    assert len({event["id"] for event in events}) == 1
    assert [e["choices"][0]["delta"].get("role") for e in events] == [
        "assistant",
        None,
        None,
        None,
    ]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_text_whose_call_nobody_can_mend_ends_with_an_error_and_without_done():
    local = Engine("local", [Text("I will ping."), BAD, finish()])

    async with serving_with(settings("local"), local) as url:
        response = await ask(url, stream=True)

    assert response.status == 200
    assert b'"code":"invalid_answer"' in response.content.split(b"\n\n")[-2]
    assert b"[DONE]" not in response.content


async def test_next_backend_that_only_talks_does_not_mend_a_call(cloud: ScriptedCloud):
    first = Engine("first", [Text("I will ping."), BAD, finish()])
    second = Engine("second", [Text("Let us talk."), finish()])

    async with serving_with(settings("first", "second"), first, second) as url:
        response = await ask(url, stream=True)

    assert b"Let us talk" not in response.content
    assert b'"code":"invalid_answer"' in response.content


async def test_engine_that_dies_after_text_ends_the_stream_with_an_error(cloud: ScriptedCloud):
    local = Engine("local", [Text("I th"), BackendUnavailable("gone")])

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url, stream=True)

    assert b'"code":"backend_unavailable"' in response.content
    assert cloud.requests == []


async def test_invalid_call_before_any_text_leaves_no_trace_in_the_stream(cloud: ScriptedCloud):
    local = Engine("local", [BAD, finish()])
    cloud.plays(*stream(chunk({"role": "assistant", "content": "hi"}), chunk({}, "stop")))

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url, stream=True)

    assert response.headers["x-headrace-backend"] == "cloud"
    assert b"tool_calls" not in response.content


async def test_stream_of_a_cloud_passes_byte_for_byte(cloud: ScriptedCloud):
    odd = [b": hello\n\n", b'data: {"model":"gpt-4o-2024",\ndata: "x":1.10}\n\nda', b"ta: {}\n\n"]
    cloud.plays(*stream(*odd))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url, stream=True)

    assert response.content == b"".join(odd) + b"data: [DONE]\n\n"


async def test_stream_of_a_mapped_model_has_the_client_s_name(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "hi"}), chunk({}, "stop")))
    mapped = cloud_backend(cloud, models={"headrace": "gpt-4o-mini"})

    async with serving_with(settings("cloud"), mapped) as url:
        models = {event["model"] async for event in events_of(url, model="headrace")}

    assert models == {"headrace"}


async def test_cloud_that_breaks_off_ends_the_stream_with_an_error_on_its_own_line(
    cloud: ScriptedCloud,
):
    half = b'data: {"choices":[{"del'
    cloud.plays(*stream(chunk({"role": "assistant", "content": "hi"}), half, Cut(), done=False))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url, stream=True)

    assert half not in response.content
    assert b'data: {"error":' in response.content.split(b"\n\n")[-2]


async def test_cloud_that_breaks_off_before_its_first_event_is_followed(cloud: ScriptedCloud):
    cloud.plays(*stream(Cut(), done=False))
    local = Engine("local", [GOOD, finish()])

    async with serving_with(settings("cloud", "local"), cloud_backend(cloud), local) as url:
        response = await ask(url, stream=True)

    assert response.headers["x-headrace-backend"] == "local"
    assert response.content.endswith(b"data: [DONE]\n\n")


# ---------------------------------------------------------------- deadline


async def test_silence_ends_with_a_timeout_after_the_deadline():
    local = Engine("local", [Pause(60)])

    async with serving_with(settings("local", extra="limits: {deadline_s: 0.2}"), local) as url:
        response = await ask(url)

    assert response.status == 504
    assert response.json["error"]["code"] == "backend_timeout"
    assert local.abandoned.is_set()


async def test_client_s_own_patience_shortens_the_deadline():
    local = Engine("local", [Pause(60)])

    async with serving_with(settings("local"), local) as url:
        response = await ask(url, headers={"x-stainless-read-timeout": "0.2"})

    assert response.status == 504


async def test_stream_that_goes_on_outlives_the_deadline():
    pieces = [step for piece in text(*"abcdef") for step in (Pause(0.4), piece)]
    local = Engine("local", [*pieces, finish()])

    async with serving_with(settings("local", extra="limits: {deadline_s: 1.5}"), local) as url:
        response = await ask(url, stream=True)

    assert response.content.endswith(b"data: [DONE]\n\n")


async def test_stream_that_goes_silent_ends_with_an_error():
    local = Engine("local", [Text("a"), Pause(60)])
    sink = MemorySink()
    limits = settings("local", extra="limits: {deadline_s: 0.2}")

    async with serving_with(limits, local, sink=sink) as url:
        response = await ask(url, stream=True)

    assert b'"code":"backend_timeout"' in response.content
    assert sink.exchanges[0].status == 200
    assert sink.exchanges[0].attempts[0].reason == "backend_timeout"
