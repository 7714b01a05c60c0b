from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from proxy.backends.base import Finish, Text
from proxy.backends.confidence import Confidence
from proxy.backends.openai import OpenAIBackend
from proxy.catalog import Champions
from proxy.errors import (
    BackendOverloaded,
    BackendTimeout,
    BackendUnavailable,
    ContextTooLong,
    InvalidAnswer,
)
from proxy.protocol.calibration import Calibration, Step
from proxy.protocol.openai import Usage, parse_request
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.engines.fronting import shipped
from tests.scripted import Cut, Pause, ScriptedCloud, chunk, completion, stream, usage_chunk
from tests.serving import Engine, call, finish, serving_with, settings, text
from tests.wire import TOOLS, ask, cloud_backend, events_of

GOOD = call("ping", '{"host":"a"}')
BAD = call("ping", '{"host":1}')
ODD = call("ping", '{"host":"b"}')
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
    assert response.headers["x-headrace-attempts"] == "3"
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


async def test_cloud_that_did_not_answer_is_recorded_with_the_model_that_was_asked_for(
    cloud: ScriptedCloud,
):
    local, sink = Engine("local", [GOOD, finish()]), MemorySink()
    cloud.plays(Cut())

    async with serving_with(
        settings("cloud", "local"), cloud_backend(cloud), local, sink=sink
    ) as url:
        await ask(url)

    (exchange,) = sink.exchanges
    assert [(a.outcome, a.model) for a in exchange.attempts] == [
        ("failed", "gpt-4o"),
        ("completed", None),
    ]


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


@pytest.mark.parametrize(
    "steps", [[Text("I will ping."), BAD, finish()], [[Text("I will ping."), BAD, finish()]]]
)
async def test_only_the_calls_of_the_next_backend_follow_a_text_that_was_sent(
    cloud: ScriptedCloud, steps: list[object]
):
    local = Engine("local", steps)
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


async def test_last_event_of_a_cloud_that_lacks_its_empty_line_passes_too(cloud: ScriptedCloud):
    pieces = stream(chunk({"content": "hi"}), b"data: [DONE]", done=False)
    cloud.plays(*pieces, b"0\r\n\r\n")

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url, stream=True)

    assert response.content.endswith(b"\n\ndata: [DONE]")


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


# ---------------------------------------------------------------- another try at home


async def test_backend_that_is_told_what_was_wrong_may_put_it_right(cloud: ScriptedCloud):
    local = Engine("local", [BAD, finish()], then=[[GOOD, finish()]])
    sink = MemorySink()

    async with serving_with(
        settings("local", "cloud"), local, cloud_backend(cloud), sink=sink
    ) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    said = local.asks[1].request.messages[-1].text
    assert response.json["choices"][0]["finish_reason"] == "tool_calls"
    assert [a.kind for a in exchange.attempts] == ["primary", "repair"]
    assert "ping" in said and "host" in said
    assert local.asks[1].constrain
    assert local.asks[1].request.tool_choice == "required"
    assert cloud.requests == []


async def test_error_tells_how_many_attempts_were_made():
    local = Engine("local", [BAD, finish()])

    async with serving_with(settings("local"), local) as url:
        response = await ask(url)

    assert response.status == 502
    assert response.headers["x-headrace-attempts"] == "2"


async def test_excuse_for_a_wrong_call_is_no_answer(cloud: ScriptedCloud):
    local = Engine("local", [BAD, finish()], then=[[Text("I cannot."), finish()]])
    cloud.plays(scripted.answer(completion(CLOUD_CALL, "tool_calls")))

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.headers["x-headrace-backend"] == "cloud"
    assert response.headers["x-headrace-fallback-reason"] == "missing_call"


async def test_only_who_is_asked_again_is_held_to_a_form_where_that_is_switched_off():
    local = Engine("local", [BAD, finish()], then=[[GOOD, finish()]])

    async with serving_with(settings("local", policy="constrain: false"), local) as url:
        await ask(url)

    assert [one.constrain for one in local.asks] == [False, True]


async def test_who_has_answered_in_a_wrong_form_is_asked_for_an_answer_and_no_call():
    local = Engine("local", [Text("Yes."), finish()], then=[[Text("{}"), finish()]])

    async with serving_with(settings("local"), local) as url:
        response = await ask(url, response_format={"type": "json_object"})

    again = local.asks[1].request
    assert response.json["choices"][0]["message"]["content"] == "{}"
    assert again.tool_choice is None
    assert "answer was not valid" in again.messages[-1].text
    assert again.messages[-1].text.endswith("Answer again.")


async def test_nobody_is_asked_again_where_that_is_switched_off(cloud: ScriptedCloud):
    local = Engine("local", [BAD, finish()], then=[[GOOD, finish()]])
    cloud.plays(scripted.answer(completion(CLOUD_CALL, "tool_calls")))
    once = settings("local", "cloud", policy="repair: {ask_again: false}")

    async with serving_with(once, local, cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.headers["x-headrace-backend"] == "cloud"
    assert len(local.asks) == 1


async def test_calls_of_a_second_try_follow_the_text_of_the_first():
    local = Engine("local", [Text("Well:"), BAD, finish()], then=[[Text("So:"), GOOD, finish()]])

    async with serving_with(settings("local"), local) as url:
        chunks = [event async for event in events_of(url)]

    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(d.get("content") or "" for d in deltas) == "Well:"
    assert [d["tool_calls"][0]["index"] for d in deltas if "tool_calls" in d] == [0, 0]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


# ---------------------------------------------------------------- when the next one is asked


@pytest.mark.parametrize(
    ("failure", "trigger"),
    [
        (BackendUnavailable("down"), "unavailable"),
        (BackendOverloaded("busy"), "overloaded"),
        (BackendTimeout("slow"), "timeout"),
        (ContextTooLong("long"), "context"),
        (InvalidAnswer("bad", "broken_call"), "invalid"),
    ],
)
async def test_failure_moves_on_only_where_the_domain_says_so(failure, trigger):
    local, spare = Engine("local", [failure]), Engine("spare", [GOOD, finish()])

    for when, expected in ((f"[{trigger}]", 200), ("[low_confidence]", failure.status)):
        policy = f"fallback: {{when: {when}}}, repair: {{ask_again: false}}"
        async with serving_with(settings("local", "spare", policy=policy), local, spare) as url:
            assert (await ask(url)).status == expected


async def test_no_more_backends_are_asked_than_the_domain_allows():
    engines = [Engine(name, [BackendUnavailable("down")]) for name in ("a", "b", "c")]

    async with serving_with(settings("a", "b", "c", policy="fallback: {most: 1}"), *engines) as url:
        response = await ask(url)

    assert response.status == 502
    assert [len(engine.asks) for engine in engines] == [1, 1, 0]


async def test_slow_backend_gets_its_share_of_the_time_and_no_more():
    slow, spare = Engine("slow", [Pause(60)]), Engine("spare", [GOOD, finish()])
    sink = MemorySink()
    quick = settings("slow", "spare", policy="deadline_s: 0.4")

    async with serving_with(quick, slow, spare, sink=sink) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    assert response.headers["x-headrace-fallback-reason"] == "backend_timeout"
    assert [(a.outcome, a.reason) for a in exchange.attempts] == [
        ("failed", "backend_timeout"),
        ("completed", None),
    ]
    assert slow.abandoned.is_set()


async def test_share_of_the_time_ends_with_the_first_text():
    slow = Engine("slow", [Text("a"), Pause(0.4), Text("b"), finish()])
    quick = settings("slow", "spare", policy="deadline_s: 0.6")

    async with serving_with(quick, slow, Engine("spare", [GOOD, finish()])) as url:
        chunks = [event async for event in events_of(url)]

    assert [c["choices"][0]["delta"].get("content") for c in chunks][:2] == ["a", "b"]


# ---------------------------------------------------------------- two backends at once


HEDGED = "hedge: {after_s: 0.1, share: 1}"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("steps", [[Pause(60)], [GOOD, Pause(60)]])
async def test_second_backend_answers_where_the_first_is_slow(stream, steps):
    # A call that is held, since the answer may go on, is nothing to send yet.
    slow, sink = Engine("slow", steps), MemorySink()
    # It has won by its first words, and goes on after that.
    spare = Engine("spare", [Text("So"), Pause(0.1), finish()])

    async with serving_with(
        settings("slow", "spare", policy=HEDGED), slow, spare, sink=sink
    ) as url:
        response = await ask(url, stream=stream)

    (exchange,) = sink.exchanges
    assert response.status == 200
    assert response.headers["x-headrace-backend"] == "spare"
    assert response.headers["x-headrace-fallback-reason"] == "hedged"
    assert [(a.kind, a.outcome, a.reason) for a in exchange.attempts] == [
        ("primary", "failed", "hedge_lost"),
        ("hedge", "completed", None),
    ]
    assert exchange.outcome == "completed"
    assert slow.abandoned.is_set()


@pytest.mark.parametrize("stream", [False, True])
async def test_first_backend_still_wins_when_it_answers_first(stream):
    first = Engine("first", [Pause(0.3), GOOD, finish()])
    second, sink = Engine("second", [Pause(60)]), MemorySink()
    racing = settings("first", "second", policy=HEDGED)

    async with serving_with(racing, first, second, sink=sink) as url:
        response = await ask(url, stream=stream)

    (exchange,) = sink.exchanges
    assert (exchange.outcome, exchange.attempts[-1].backend) == ("completed", "first")
    assert [(a.kind, a.outcome, a.reason) for a in exchange.attempts] == [
        ("hedge", "failed", "hedge_lost"),
        ("primary", "completed", None),
    ]
    assert response.headers["x-headrace-backend"] == "first"
    assert "x-headrace-fallback-reason" not in response.headers
    assert second.abandoned.is_set()


async def test_one_that_fails_in_a_race_leaves_it_to_the_other():
    first = Engine("first", [Pause(0.2), BackendUnavailable("down")])
    second = Engine("second", [Pause(0.3), GOOD, finish()])

    async with serving_with(settings("first", "second", policy=HEDGED), first, second) as url:
        response = await ask(url)

    assert response.headers["x-headrace-backend"] == "second"


async def test_race_that_both_lose_is_told_as_the_last_failure():
    first = Engine("first", [Pause(0.2), BackendUnavailable("down")])
    second = Engine("second", [Pause(0.3), BackendOverloaded("busy")])

    async with serving_with(settings("first", "second", policy=HEDGED), first, second) as url:
        response = await ask(url)

    assert response.status == BackendOverloaded.status
    assert (len(first.asks), len(second.asks)) == (1, 1)


async def test_client_that_leaves_ends_both():
    first, second = Engine("first", [Pause(60)]), Engine("second", [Pause(60)])
    sink = MemorySink()

    async with serving_with(
        settings("first", "second", policy=HEDGED), first, second, sink=sink
    ) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask(url)
        await asyncio.wait_for(first.abandoned.wait(), 5)
        await asyncio.wait_for(second.abandoned.wait(), 5)

    (exchange,) = sink.exchanges
    assert exchange.outcome == "client_aborted"


# ---------------------------------------------------------------- several samples


@pytest.mark.parametrize("calls", [(ODD, GOOD, GOOD), (GOOD, ODD, GOOD), (GOOD, GOOD, ODD)])
async def test_call_that_most_samples_make_is_given(calls):
    sink = MemorySink()
    first, *then = ([one, finish()] for one in calls)
    local = Engine("local", first, then=then)

    async with serving_with(settings("local", policy="samples: 3"), local, sink=sink) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    message = response.json["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"host":"a"}'
    assert sorted(a.kind for a in exchange.attempts) == ["primary", "sample", "sample"]
    assert exchange.attempts[-1].answer.tool_calls[0].function.arguments == '{"host":"a"}'
    assert {one.request.temperature for one in local.asks} == {0.7}


async def test_samples_agree_whatever_the_order_of_their_calls():
    ours, theirs = call("ping", '{"host":"a"}'), call("ping", '{"host":"b"}')
    spaced = call("ping", '{ "host": "a" }')
    local = Engine(
        "local", [ODD, finish()], then=[[ours, theirs, finish()], [theirs, spaced, finish()]]
    )

    async with serving_with(settings("local", policy="samples: 3"), local) as url:
        response = await ask(url)

    calls = response.json["choices"][0]["message"]["tool_calls"]
    assert sorted(one["function"]["arguments"] for one in calls)[-1] == '{"host":"b"}'


async def test_without_a_majority_the_next_backend_answers():
    each = [[call("ping", f'{{"host":"{host}"}}'), finish()] for host in "xyz"]
    local, spare = Engine("local", each[0], then=each[1:]), Engine("spare", [GOOD, finish()])
    voting = settings("local", "spare", policy="samples: 3")

    async with serving_with(voting, local, spare) as url:
        response = await ask(url)

    # The spare is local too, so that it is sampled as well.
    assert response.headers["x-headrace-fallback-reason"] == "no_majority"
    assert response.headers["x-headrace-backend"] == "spare"


# ---------------------------------------------------------------- better than nothing


UNSURE = Finish(reason="stop", usage=Usage.of(1, 1), confidence=Confidence(name=0.9, arguments=0.1))


@pytest.mark.parametrize("stream", [False, True])
async def test_unsure_answer_is_given_when_nobody_has_a_better_one(stream):
    local = Engine("local", [Text("Well."), GOOD, UNSURE])
    spare = Engine("spare", [BackendUnavailable("down")])
    sink = MemorySink()
    floored = settings("local", "spare", policy="floor: 0.5")

    async with serving_with(floored, local, spare, sink=sink) as url:
        response = await ask(url, stream=stream)

    (exchange,) = sink.exchanges
    assert response.status == 200
    assert b'"ping"' in response.content
    assert response.content.count(b"Well.") == 1
    assert b'"error"' not in response.content
    assert exchange.outcome == "completed"
    assert [(a.backend, a.outcome) for a in exchange.attempts] == [
        ("spare", "failed"),
        ("local", "completed"),
    ]


@pytest.mark.parametrize(
    "steps", [[Text("Well."), GOOD, UNSURE], [[Text("Well."), GOOD, UNSURE]]], ids=["apart", "once"]
)
async def test_text_that_came_with_an_unsure_call_is_not_lost(steps):
    sink = MemorySink()
    local, spare = Engine("local", steps), Engine("spare", [Text("So."), ODD, finish()])
    floored = settings("local", "spare", policy="floor: 0.5")

    async with serving_with(floored, local, spare, sink=sink) as url:
        chunks = [event async for event in events_of(url)]

    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    called = [made["function"] for d in deltas for made in d.get("tool_calls", ())]
    (exchange,) = sink.exchanges
    assert "".join(d.get("content") or "" for d in deltas) == "Well."
    assert "".join(made["arguments"] for made in called) == '{"host":"b"}'
    assert [a.reason for a in exchange.attempts] == ["low_confidence", None]
    assert [a.answer.text for a in exchange.attempts] == ["Well.", "So."]


@pytest.mark.parametrize("stream", [False, True])
async def test_invalid_sample_is_never_the_last_resort(stream):
    local = Engine("local", [GOOD, finish()], then=[[ODD, finish()], [BAD, finish()]])
    sink = MemorySink()

    async with serving_with(settings("local", policy="samples: 3"), local, sink=sink) as url:
        response = await ask(url, stream=stream)

    (exchange,) = sink.exchanges
    assert response.status == 200
    assert b"1" not in exchange.attempts[-1].answer.tool_calls[0].function.arguments.encode()
    assert sorted(a.outcome for a in exchange.attempts) == ["completed", "failed", "invalid"]


async def test_cloud_that_calls_wrongly_after_the_text_is_asked_once_and_recorded_as_invalid(
    cloud: ScriptedCloud,
):
    local = Engine("local", [Text("Well."), BAD, finish()])
    cloud.plays(*stream(chunk({"role": "assistant", "content": "No."}), chunk({}, "stop")))
    sink = MemorySink()
    once = settings("local", "cloud", policy="repair: {lossless: false}")

    async with serving_with(once, local, cloud_backend(cloud), sink=sink) as url:
        chunks = [event async for event in events_of(url)]

    (exchange,) = sink.exchanges
    assert chunks[-1]["error"]["code"] == "invalid_answer"
    assert len(cloud.requests) == 1
    assert (exchange.attempts[-1].backend, exchange.outcome) == ("cloud", "invalid")


# ---------------------------------------------------------------- what is asked, and what is told


async def test_samples_have_the_client_s_temperature_and_a_seed_each():
    local = Engine("local", [GOOD, finish()])

    async with serving_with(settings("local", policy="samples: 3"), local) as url:
        await ask(url, temperature=0.2, seed=7)

    assert [one.request.temperature for one in local.asks] == [0.2] * 3
    assert sorted(one.request.seed for one in local.asks) == [7, 8, 9]


async def test_samples_without_a_seed_get_none():
    local = Engine("local", [GOOD, finish()])

    async with serving_with(settings("local", policy="samples: 2"), local) as url:
        await ask(url)

    assert [one.request.seed for one in local.asks] == [None, None]


@pytest.mark.parametrize(("is_local", "fields"), [(True, {"tools": None}), (False, {})])
async def test_only_calls_of_local_engines_are_sampled(is_local, fields):
    engine = Engine("engine", [Text("Well."), finish()], is_local=is_local)

    async with serving_with(settings("engine", policy="samples: 3"), engine) as url:
        response = await ask(url, **fields)

    assert response.json["choices"][0]["message"]["content"] == "Well."
    assert len(engine.asks) == 1


async def test_of_samples_of_which_none_won_one_is_given_where_nobody_follows():
    each = [[call("ping", f'{{"host":"{host}"}}'), finish()] for host in "xyz"]
    local, sink = Engine("local", each[0], then=each[1:]), MemorySink()
    voting = settings("local", policy="samples: 3, repair: {ask_again: false}")

    async with serving_with(voting, local, sink=sink) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    assert response.status == 200
    assert [(a.outcome, a.reason) for a in exchange.attempts] == [
        ("failed", "no_majority"),
        ("failed", "no_majority"),
        ("completed", None),
    ]


async def test_attempts_are_numbered_and_told_apart():
    down, wrong = Engine("down", [BackendUnavailable("down")]), Engine("wrong", [BAD, finish()])
    good, sink = Engine("good", [GOOD, finish()]), MemorySink()

    async with serving_with(settings("down", "wrong", "good"), down, wrong, good, sink=sink) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    assert [a.kind for a in exchange.attempts] == ["primary", "fallback", "repair", "fallback"]
    assert response.headers["x-headrace-attempts"] == "4"
    assert response.headers["x-headrace-fallback-reason"] == "schema_violation"


async def test_cloud_is_not_told_what_was_wrong():
    far = Engine("far", [InvalidAnswer("bad", "broken_call")], is_local=False)
    good = Engine("good", [GOOD, finish()])

    async with serving_with(settings("far", "good"), far, good) as url:
        response = await ask(url)

    assert (len(far.asks), response.headers["x-headrace-backend"]) == (1, "good")


SURE = Finish(reason="stop", usage=Usage.of(1, 1), confidence=Confidence(name=0.9, arguments=0.8))


async def test_how_sure_the_engine_was_is_told():
    async with serving_with(settings("local"), Engine("local", [GOOD, SURE])) as url:
        sure = await ask(url)
    async with serving_with(settings("local"), Engine("local", [GOOD, finish()])) as url:
        unknown = await ask(url)

    assert float(sure.headers["x-headrace-confidence"]) == 0.8
    assert "x-headrace-confidence" not in unknown.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_of_two_unsure_answers_the_last_one_is_given(stream):
    first, second = Engine("first", [GOOD, UNSURE]), Engine("second", [ODD, UNSURE])
    down = Engine("down", [BackendUnavailable("down")])
    floored = settings("first", "second", "down", policy="floor: 0.5")

    async with serving_with(floored, first, second, down) as url:
        response = await ask(url, stream=stream)

    assert response.status == 200
    assert rb"\"b\"" in response.content and rb"\"a\"" not in response.content


async def test_last_backend_has_no_floor():
    local, sink = Engine("local", [GOOD, UNSURE]), MemorySink()

    async with serving_with(settings("local", policy="floor: 0.5"), local, sink=sink) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    assert response.status == 200
    assert [a.outcome for a in exchange.attempts] == ["completed"]


async def test_floor_of_an_adapter_that_was_never_measured_is_none():
    local, spare = Engine("local", [GOOD, UNSURE]), Engine("spare", [ODD, finish()])

    async with serving_with(settings("local", "spare", policy="floor: auto"), local, spare) as url:
        response = await ask(url)

    assert response.headers["x-headrace-backend"] == "local"


@pytest.mark.parametrize(
    ("target", "sure", "backend"),
    [(0.05, True, "local"), (0.05, False, "spare"), (0.2, False, "local")],
)
async def test_floor_is_where_the_adapter_s_calibration_puts_it(target, sure, backend):
    steps = [
        Step(floor=0.7, served=1000, wrong=10, upper=0.02),
        Step(floor=0.05, served=2000, wrong=300, upper=0.17),
    ]
    measured = Calibration(reference="labels", dataset_fingerprint="", steps=steps)
    adapter = msgspec.structs.replace(shipped().by_domain["api"], calibration=measured)
    champions = {"local": Champions({"all": adapter}, {adapter.id: adapter})}
    local = Engine("local", [GOOD, SURE if sure else UNSURE])
    spare = Engine("spare", [ODD, finish()])
    auto = settings("local", "spare", policy=f"floor: auto, target_disagreement: {target}")

    async with serving_with(auto, local, spare, champions=champions) as url:
        response = await ask(url)

    assert response.headers["x-headrace-backend"] == backend


async def test_nobody_races_the_last_backend_or_a_second_try():
    local = Engine("local", [Pause(0.2), BAD, finish()], then=[[Pause(0.2), GOOD, finish()]])
    spare, sink = Engine("spare", [GOOD, finish()]), MemorySink()

    async with serving_with(settings("local", policy=HEDGED), local, spare, sink=sink) as url:
        response = await ask(url)

    (exchange,) = sink.exchanges
    assert [a.kind for a in exchange.attempts] == ["primary", "repair"]
    assert (response.status, spare.asks) == (200, [])


async def test_second_backend_is_asked_once_the_first_is_slower_than_it_ever_was():
    quick, slow = [GOOD, finish()], [Pause(60)]
    usual, spare = Engine("usual", quick, then=[*[quick] * 19, slow]), Engine("spare", quick)
    learning = settings("usual", "spare", policy="hedge: {share: 1}")

    async with serving_with(learning, usual, spare) as url:
        for _ in range(20):
            await ask(url)
        before = len(spare.asks)
        response = await ask(url)

    assert before == 0
    assert response.headers["x-headrace-fallback-reason"] == "hedged"
    assert response.headers["x-headrace-backend"] == "spare"


async def test_how_an_answer_goes_on_says_nothing_about_when_the_next_one_begins():
    usual = [Text("So"), Pause(0), Text("!"), finish()]
    first = Engine("first", usual, then=[*[usual] * 11, [Pause(0.3), GOOD, finish()]])
    spare = Engine("spare", [GOOD, finish()])
    learning = settings("first", "spare", policy="hedge: {share: 1}")

    async with serving_with(learning, first, spare) as url:
        for _ in range(13):
            await ask(url, stream=True)

    # Twelve answers are not enough to know what is slow; their pieces are many more.
    assert len(first.asks) == 13
    assert spare.asks == []


async def test_no_more_requests_are_asked_twice_than_the_domain_allows():
    slow, spare = Engine("slow", [Pause(0.3), GOOD, finish()]), Engine("spare", [GOOD, finish()])
    seldom = settings("slow", "spare", policy="hedge: {after_s: 0.05, share: 0.25}")

    async with serving_with(seldom, slow, spare) as url:
        for _ in range(8):
            await ask(url)

    assert 1 <= len(spare.asks) <= 2


async def test_answer_without_an_end_ends_the_stream_with_an_error():
    async with serving_with(settings("local"), Engine("local", [Text("a")])) as url:
        response = await ask(url, stream=True)

    assert b'"code":"backend_unavailable"' in response.content
    assert b"[DONE]" not in response.content


@pytest.mark.parametrize("stream", [False, True])
async def test_time_of_our_own_is_what_is_left_without_the_backend_s(stream):
    engine = Engine("local", [Pause(0.2), GOOD, finish()])

    async with serving_with(settings("local"), engine) as url:
        began = time.perf_counter()
        response = await ask(url, stream=stream)
        took_ms = 1000 * (time.perf_counter() - began)

    assert 0 < float(response.headers["x-headrace-overhead-ms"]) <= took_ms - 190


async def test_error_names_the_backend_that_was_asked_last():
    engines = [Engine(name, [BackendUnavailable("down")]) for name in ("first", "second")]

    async with serving_with(settings("first", "second"), *engines) as url:
        response = await ask(url)

    assert (response.status, response.headers["x-headrace-backend"]) == (502, "second")
    assert response.headers["x-headrace-fallback-reason"] == "backend_unavailable"


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_that_only_we_asked_a_cloud_for_is_not_the_client_s(
    cloud: ScriptedCloud, wanted: bool
):
    cloud.plays(*stream(chunk({"content": "x"}), chunk({}, "stop"), usage_chunk(3, 2)))
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    counting, sink = OpenAIBackend("cloud", base_url=cloud.base_url, count_usage=True), MemorySink()

    async with serving_with(settings("cloud"), counting, sink=sink) as url:
        response = await ask(url, stream=True, **options)

    (exchange,) = sink.exchanges
    assert (b'"usage"' in response.content) == wanted
    assert exchange.attempts[0].usage == Usage.of(3, 2)
