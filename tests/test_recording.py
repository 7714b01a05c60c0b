"""A recording says what was said, and how each attempt ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import recording as module
from proxy import sse
from proxy.backends.base import Call, Event, Finish, Relayed, Text
from proxy.errors import (
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    InvalidAnswer,
    ProxyError,
)
from proxy.protocol.exchange import Attempt, Outcome
from proxy.protocol.openai import FunctionCall, ToolCall, Usage, parse_request
from proxy.recording import Recording, Tape
from tests.scripted import chunk, completion, usage_chunk

BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"seed":1}'
STOP = Finish(reason="stop", usage=Usage.of(3, 2), mean_logprob=-0.5)
CALL = ToolCall("call_1", FunctionCall("add", '{"a":1}'))


def new_recording() -> Recording:
    return Recording(
        id="chatcmpl-ours",
        request_id="req-1",
        tenant="t",
        caller="c",
        domain="api",
        route="r",
        request=parse_request(BODY),
        body=BODY,
        retries=1,
    )


def recorded(play: Callable[[Tape], None]) -> Attempt:
    recording = new_recording()
    with recording.attempt("primary", "local", "api-v1", "hermes") as tape:
        play(tape)
    recording.close(200)
    return recording.exchange().attempts[0]


def hear(*events: Event) -> Callable[[Tape], None]:
    def play(tape: Tape) -> None:
        for event in events:
            tape.hear(event)

    return play


def fail(recording: Recording, error: BaseException, *events: Event) -> None:
    with recording.attempt("primary", "local") as tape:
        hear(*events)(tape)
        raise error


async def relayed(
    pieces: Iterable[bytes], content_type: str = "text/event-stream; charset=utf-8"
) -> Attempt:
    async def content() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    recording = new_recording()
    with recording.attempt("fallback", "cloud") as tape:
        reply = Relayed(200, {"content-type": content_type}, content())
        tape.begin(reply)
        passed = [tape.take(piece) async for piece in reply.content]
    recording.close(200)

    assert passed == list(pieces)
    return recording.exchange().attempts[0]


def wire(*chunks: object, done: bool = True) -> bytes:
    sent = [sse.encode(msgspec.json.encode(one)) for one in chunks]
    return b"".join([*sent, sse.encode(sse.DONE)] if done else sent)


# ---------------------------------------------------------------- the exchange


def test_an_exchange_holds_the_request_as_it_was_sent() -> None:
    recording = new_recording()
    with recording.attempt("primary", "local", "api-v1", "hermes") as tape:
        hear(Text("hi"), STOP)(tape)
    recording.close(200)

    exchange = recording.exchange()

    assert bytes(exchange.request) == BODY
    assert (exchange.id, exchange.model, exchange.retries) == ("chatcmpl-ours", "gpt-4o", 1)
    assert (exchange.outcome, exchange.status) == ("completed", 200)
    assert 0 <= exchange.attempts[0].total_s <= exchange.total_s


def test_the_last_attempt_decides_what_became_of_the_request() -> None:
    recording = new_recording()
    with pytest.raises(InvalidAnswer):
        fail(recording, InvalidAnswer("no", "schema_violation"), Call(CALL))
    with recording.attempt("fallback", "cloud") as tape:
        hear(Text("hi"), STOP)(tape)
    recording.close(200)

    exchange = recording.exchange()

    assert [attempt.outcome for attempt in exchange.attempts] == ["invalid", "completed"]
    assert exchange.attempts[0].reason == "schema_violation"
    assert exchange.attempts[0].answer.tool_calls == [CALL]
    assert exchange.outcome == "completed"


def test_a_client_that_left_after_the_answer_is_told_apart() -> None:
    recording = new_recording()
    with recording.attempt("primary", "local") as tape:
        hear(STOP)(tape)
    recording.close(200, "client_aborted")

    exchange = recording.exchange()

    assert exchange.outcome == "client_aborted"
    assert exchange.attempts[0].outcome == "completed"


def test_a_request_that_nobody_tried_has_failed() -> None:
    recording = new_recording()
    recording.close(503)

    assert recording.exchange().outcome == "failed"


# ---------------------------------------------------------------- outcomes

REFUSED = BackendRefused("no", status=400, type="t", code="s3cret from afar", param=None)


@pytest.mark.parametrize(
    ("error", "begun", "outcome", "reason"),
    [
        (InvalidAnswer("no", "unknown_tool"), True, "invalid", "unknown_tool"),
        (BackendUnavailable("gone"), False, "failed", "backend_unavailable"),
        (BackendUnavailable("gone"), True, "upstream_aborted", "backend_unavailable"),
        (BackendTimeout("silent"), True, "upstream_aborted", "backend_timeout"),
        (REFUSED, False, "failed", "backend_refused"),
        (ProxyError("bug"), False, "failed", "internal_error"),
        (ZeroDivisionError(), False, "failed", "internal_error"),
        (asyncio.CancelledError(), True, "client_aborted", "cancelled"),
    ],
)
def test_the_way_an_attempt_is_left_is_its_outcome(
    error: BaseException, begun: bool, outcome: Outcome, reason: str
) -> None:
    recording = new_recording()
    with pytest.raises(type(error)):
        fail(recording, error, *[Text("hi")] * begun)
    recording.close(500)

    (attempt,) = recording.exchange().attempts

    assert (attempt.outcome, attempt.reason) == (outcome, reason)
    assert attempt.answer.text == "hi" * begun


def test_what_was_said_first_about_the_end_stays() -> None:
    recording = new_recording()
    tape = recording.attempt("hedge", "cloud")
    tape.end("failed", "hedge_lost")
    tape.end("client_aborted", "cancelled")
    recording.close(200)

    assert recording.exchange().attempts[0].reason == "hedge_lost"


# ---------------------------------------------------------------- generated


def test_a_generated_answer_is_kept_with_its_usage() -> None:
    attempt = recorded(hear(Text("a"), Text("b"), Call(CALL), STOP))

    assert attempt.answer.text == "ab"
    assert attempt.answer.tool_calls == [CALL]
    assert attempt.answer.finish_reason == "tool_calls"
    assert attempt.usage == Usage.of(3, 2)
    assert attempt.mean_logprob == -0.5
    assert attempt.first_byte_s is not None


def test_a_generated_answer_without_an_end_is_not_completed() -> None:
    attempt = recorded(hear(Text("a")))

    assert (attempt.outcome, attempt.reason) == ("upstream_aborted", "unfinished")


def test_an_attempt_without_a_byte_has_no_time_of_one() -> None:
    assert recorded(hear()).first_byte_s is None


# ---------------------------------------------------------------- relayed

PARALLEL = wire(
    chunk({"role": "assistant", "content": None}),
    chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    chunk({"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]}),
    chunk({}, "tool_calls"),
    usage_chunk(7, 5),
)


@given(cuts=st.lists(st.integers(min_value=0, max_value=len(PARALLEL)), max_size=10))
async def test_a_streamed_answer_is_read_in_any_chunking(cuts: list[int]) -> None:
    bounds = sorted({0, len(PARALLEL), *cuts})

    attempt = await relayed([PARALLEL[a:b] for a, b in pairwise(bounds)])

    assert attempt.answer.tool_calls == [
        ToolCall("a", FunctionCall("f", "{}")),
        ToolCall("b", FunctionCall("g", "{}")),
    ]
    assert (attempt.outcome, attempt.answer.finish_reason) == ("completed", "tool_calls")
    assert attempt.usage == Usage.of(7, 5)


async def test_a_whole_answer_is_read() -> None:
    message = {"role": "assistant", "content": "hi", "tool_calls": [msgspec.to_builtins(CALL)]}

    attempt = await relayed(
        [msgspec.json.encode(completion(message, "tool_calls"))], "application/json"
    )

    assert attempt.outcome == "completed"
    assert attempt.answer.text == "hi"
    assert attempt.answer.tool_calls == [CALL]
    assert attempt.usage == Usage.of(3, 2)


async def test_the_id_that_the_client_saw_is_the_exchange_s() -> None:
    async def content() -> AsyncIterator[bytes]:
        yield wire(chunk({"content": "hi"}, "stop"))

    recording = new_recording()
    with recording.attempt("primary", "cloud") as tape:
        reply = Relayed(200, {"content-type": "text/event-stream"}, content())
        tape.begin(reply)
        [tape.take(piece) async for piece in reply.content]
    recording.close(200)

    assert recording.exchange().id == "chatcmpl-cloud"


async def test_a_custom_call_is_kept() -> None:
    call = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls"}}

    attempt = await relayed([wire(chunk({"tool_calls": [call]}, "tool_calls"))])

    assert attempt.answer.tool_calls == [ToolCall("a", FunctionCall("sh", "ls"), "custom")]


async def test_chunks_without_choices_are_nothing_to_worry_about() -> None:
    filtered = {"id": "x", "choices": [], "prompt_filter_results": []}

    attempt = await relayed([wire(filtered, chunk({"content": "hi"}, "stop"), {"choices": None})])

    assert (attempt.outcome, attempt.answer.text) == ("completed", "hi")


async def test_of_several_choices_the_first_is_kept() -> None:
    other = {"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}

    attempt = await relayed([wire(chunk({"content": "yes"}, "stop"), {"choices": [other]})])

    assert (attempt.answer.text, attempt.answer.finish_reason) == ("yes", "stop")


async def test_a_refusal_is_kept_apart_from_text() -> None:
    attempt = await relayed([wire(chunk({"refusal": "I "}), chunk({"refusal": "won't"}, "stop"))])

    assert (attempt.answer.text, attempt.answer.refusal) == ("", "I won't")


TEXT = chunk({"content": "hi"})


@pytest.mark.parametrize(
    ("content", "outcome", "reason"),
    [
        (wire(TEXT, done=False), "upstream_aborted", "unfinished"),
        (wire(TEXT), "upstream_aborted", "unfinished"),
        (wire(TEXT, {"error": {"message": "s3cret"}}), "upstream_aborted", "error_in_answer"),
        (wire(TEXT) + b"data: {oops\n\n", "failed", "unreadable_answer"),
        (wire(TEXT, {"choices": "none"}), "failed", "unreadable_answer"),
        (wire(TEXT) + b'data: {"x":' + b"[" * 100_000 + b"\n\n", "failed", "unreadable_answer"),
    ],
)
async def test_a_relayed_answer_that_is_not_whole_is_not_completed(
    content: bytes, outcome: Outcome, reason: str
) -> None:
    attempt = await relayed([content])

    assert (attempt.outcome, attempt.reason) == (outcome, reason)
    assert attempt.answer.text == "hi"


async def test_garbage_in_place_of_an_answer_is_kept_out() -> None:
    attempt = await relayed([b"\xff\x00<html>"], "application/json")

    assert (attempt.outcome, attempt.reason) == ("failed", "unreadable_answer")


async def test_of_a_giant_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)

    attempt = await relayed([wire(TEXT, done=False)] * 10 + [wire(chunk({}, "stop"))])

    assert (attempt.outcome, attempt.reason) == ("failed", "too_large_to_record")
    assert 0 < len(attempt.answer.text) < 20


def test_the_size_counts_the_body_and_the_answers() -> None:
    recording = new_recording()
    with recording.attempt("primary", "local") as tape:
        hear(Text("x" * 100), Call(CALL), STOP)(tape)

    assert recording.size == len(BODY) + 100 + len(CALL.function.arguments)
