from __future__ import annotations

import pytest

from proxy.backends.base import Call, Event, Finish, Text
from proxy.backends.confidence import Confidence
from proxy.domains import Domain, Repair
from proxy.errors import InvalidAnswer, LowConfidence
from proxy.protocol.openai import ChatRequest, Usage, parse_request
from proxy.recording import Tape
from proxy.verify import Verification
from tests.serving import call, finish
from tests.wire import TOOLS

GOOD = call("ping", '{"host":"a"}')
BAD = call("ping", '{"host":1}')
WRAPPED = call("ping", "{'host': 'a',}")
ENFORCE = Domain(plan=["local"])
REQUEST = parse_request(
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"tools":' + TOOLS + b"}"
)


async def test_text_passes_at_once_and_calls_wait_for_the_end():
    events = verified(each(Text("a"), GOOD, Text("b"), finish()), REQUEST, ENFORCE, tape())

    assert [type(event) async for event in events] == [Text, Text, Call, Finish]


async def test_invalid_call_is_never_given_out_when_enforced():
    events = verified(each(Text("a"), BAD, finish()), REQUEST, ENFORCE, tape())

    assert await anext(events) == Text("a")
    with pytest.raises(InvalidAnswer, match="ping") as caught:
        await anext(events)
    assert caught.value.reason == "schema_violation"


async def test_invalid_call_is_given_out_and_recorded_when_observed():
    observed = tape()

    events = [
        e
        async for e in verified(
            each(BAD, finish()), REQUEST, Domain(plan=["x"], verify="observe"), observed
        )
    ]

    observed.end("completed")
    attempt = observed.attempt(observed.heard())
    assert events[0] == BAD
    assert (attempt.outcome, attempt.reason) == ("invalid", "schema_violation")


async def test_nothing_is_held_when_verification_is_off():
    events = verified(
        each(BAD, Text("a"), finish()), REQUEST, Domain(plan=["x"], verify="off"), tape()
    )

    assert [type(event) async for event in events] == [Call, Text, Finish]


async def test_answer_that_breaks_the_response_format_is_invalid():
    asked = request_for(b'"response_format":{"type":"json_object"}')

    events = verified(each(Text("no JSON"), finish()), asked, ENFORCE, tape())

    with pytest.raises(InvalidAnswer):
        [event async for event in events]


async def test_answer_cut_by_max_tokens_may_break_the_response_format():
    asked = request_for(b'"response_format":{"type":"json_object"}')

    events = verified(each(Text('{"a'), finish("length")), asked, ENFORCE, tape())

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


async def verified(events, request, policy, tape: Tape, floor=None):
    """What the client may get of these events, as soon as it may."""
    verification = Verification(request, policy, tape, floor)
    async for event in events:
        for checked in verification.feed(tape.hear(event)):
            yield checked


async def test_call_that_is_wrong_in_form_only_is_put_right_and_recorded():
    mended = tape()
    mended_events = [e async for e in verified(each(WRAPPED, finish()), REQUEST, ENFORCE, mended)]

    mended.end("completed")
    attempt = mended.attempt(mended.heard())
    assert isinstance(mended_events[0], Call)
    assert mended_events[0].call.function.arguments == '{"host":"a"}'
    assert attempt.answer.tool_calls == [mended_events[0].call]
    assert (attempt.outcome, attempt.repairs) == ("completed", ["json_syntax"])


async def test_repair_can_be_switched_off():
    policy = Domain(plan=["local"], repair=Repair(lossless=False))

    with pytest.raises(InvalidAnswer):
        [e async for e in verified(each(WRAPPED, finish()), REQUEST, policy, tape())]


@pytest.mark.parametrize(
    ("confidence", "passes"),
    [(Confidence(1.0, 0.4), False), (Confidence(1.0, 0.5), True), (None, True)],
)
async def test_calls_that_the_engine_is_not_sure_of_are_not_given(confidence, passes):
    end = Finish(reason="stop", usage=Usage.of(1, 1), confidence=confidence)
    events = verified(each(GOOD, end), REQUEST, ENFORCE, tape(), floor=0.5)

    if passes:
        assert [type(event) async for event in events] == [Call, Finish]
    else:
        with pytest.raises(LowConfidence):
            [event async for event in events]


async def test_text_has_no_floor():
    end = Finish(reason="stop", usage=Usage.of(1, 1), confidence=Confidence(0.1, 1.0))

    events = [e async for e in verified(each(Text("a"), end), REQUEST, ENFORCE, tape(), floor=0.5)]

    assert events == [Text("a"), end]
