"""What is kept of a recording: complete, priced, and no more than was allowed."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import date

import msgspec

from proxy.backends.base import Call, Finish, Text
from proxy.counting import Counting
from proxy.keeping import Keeping
from proxy.protocol.exchange import Exchange, Level
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import FunctionCall, ToolCall, Usage, parse_request
from proxy.protocol.prices import Price
from proxy.protocol.redact import Redactor
from proxy.recording import Recording, Tape
from tests.scripted import chunk, completion, usage_chunk

BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Mail alice@example.com please."}],
}
PRICES = {"gpt-4o": [Price(since=date(2020, 1, 1), input=1, output=2, cached_input=0.5)]}
CALL = Call(ToolCall("call_1", FunctionCall("mail", '{"to":"alice@example.com"}')))


def recording(
    level: Level = "full", conversation: str | None = None, body: object = BODY
) -> Recording:
    content = msgspec.json.encode(body)
    return Recording(
        id="chatcmpl-ours",
        request_id="req-1",
        tenant="t",
        caller="c",
        domain="d",
        route="exact",
        request=parse_request(content),
        body=content,
        level=level,
        conversation=conversation,
    )


def kept(keeping: Keeping, level: Level = "full") -> Exchange:
    recorded = recording(level)
    with recorded.attempt("primary", "local") as tape:
        tape.hear(Text("I mail alice@example.com."))
        tape.hear(CALL)
        tape.hear(Finish(reason="tool_calls", usage=Usage.of(3, 2)))
    recorded.close(200)
    exchange = keeping(recorded)
    assert isinstance(exchange, Exchange)
    return exchange


def answered(*chunks: object) -> Exchange:
    recorded = recording()
    with recorded.attempt("primary", "cloud") as tape:
        _relay(tape, b"".join(b"data: " + msgspec.json.encode(one) + b"\n\n" for one in chunks))
    recorded.close(200)
    exchange = Keeping(counting=Counting(PRICES))(recorded)
    assert isinstance(exchange, Exchange)
    return exchange


def _relay(tape: Tape, content: bytes) -> None:
    tape._content_type = "text/event-stream"
    tape._bytes = [content]


def test_reported_usage_is_priced_by_the_model_that_answered():
    exchange = answered(chunk({"content": "hi"}, "stop"), usage_chunk(1_000_000, 500_000))

    (attempt,) = exchange.attempts
    assert (attempt.model, attempt.usage_source) == ("gpt-4o-2024-08-06", "reported")
    assert attempt.cost_usd == exchange.cost_usd == 2.0


def test_cached_tokens_are_priced_as_such():
    usage = usage_chunk(1_000_000, 0)
    usage["usage"]["prompt_tokens_details"] = {"cached_tokens": 1_000_000}

    (attempt,) = answered(chunk({"content": "hi"}, "stop"), usage).attempts

    assert (attempt.cached_tokens, attempt.cost_usd) == (1_000_000, 0.5)


def test_usage_that_nobody_reported_is_estimated_and_said_to_be():
    (attempt,) = answered(chunk({"content": "x" * 400})).attempts

    assert attempt.outcome == "upstream_aborted"
    assert attempt.usage_source == "estimated"
    assert attempt.usage.completion_tokens == 100
    assert attempt.cost_usd > 0


def test_prompt_of_who_left_before_the_answer_was_used():
    recorded = recording()
    with contextlib.suppress(asyncio.CancelledError), recorded.attempt("primary", "cloud"):
        raise asyncio.CancelledError
    recorded.close(499)

    (attempt,) = Keeping(counting=Counting(PRICES))(recorded).attempts

    size = len(msgspec.json.encode(BODY))
    assert (attempt.outcome, attempt.usage) == ("client_aborted", Usage.of(size // 4, 0))
    assert attempt.usage_source == "estimated"


def test_answer_without_a_word_has_no_usage():
    (attempt,) = answered().attempts

    assert (attempt.usage, attempt.usage_source, attempt.cost_usd) == (None, None, None)


def test_local_backend_without_a_price_costs_nothing_known():
    exchange = kept(Keeping(counting=Counting(PRICES)))

    assert exchange.cost_usd is None
    assert exchange.attempts[0].usage_source == "reported"


def test_conversation_is_the_client_s_or_derived():
    named, derived = recording(conversation="mine"), recording()
    for one in (named, derived):
        one.close(200)

    assert Keeping()(named).conversation == "mine"
    assert Keeping()(derived).conversation.startswith("conv-")


def test_result_of_a_tool_is_judged_and_kept_even_without_words():
    call = {"id": "call_1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"error":"no route"}'}
    asked = [*BODY["messages"], {"role": "assistant", "tool_calls": [call]}, result]
    recorded = recording("metadata", body=BODY | {"messages": asked})
    recorded.close(200)

    (told,) = Keeping()(recorded).tool_results

    assert (told.tool_call_id, told.name, told.outcome) == ("call_1", "ping", "error")


def test_metadata_only_has_no_word_of_request_and_answer():
    exchange = kept(Keeping(), "metadata")

    assert exchange.level == "metadata"
    assert bytes(exchange.request) == b"{}"
    assert b"alice" not in msgspec.json.encode(exchange)
    assert exchange.attempts[0].usage == Usage.of(3, 2)
    assert exchange.conversation.startswith("conv-")


def test_one_value_has_one_pseudonym_in_text_and_arguments():
    exchange = kept(Keeping(redactor=Redactor(b"k" * 32)))

    answer = exchange.attempts[0].answer
    to = msgspec.json.decode(answer.tool_calls[0].function.arguments)["to"]
    asked = msgspec.json.decode(exchange.request)["messages"][0]["content"]
    assert to.startswith("<email:")
    assert (answer.text, asked) == (f"I mail {to}.", f"Mail {to} please.")


def test_feedback_is_redacted_under_its_conversation():
    redactor = Redactor(b"k" * 32)
    feedback = Feedback(
        id="f",
        given_at=1,
        tenant="t",
        caller="c",
        conversation="bob@example.com",
        kind="comment",
        value="ask bob@example.com",
    )

    found = Keeping(redactor=redactor)(feedback)
    named = recording(conversation="bob@example.com")
    named.close(200)

    assert found.value == f"ask {found.conversation}"
    assert Keeping(redactor=redactor)(named).conversation == found.conversation


def test_whole_completion_tells_its_model():
    recorded = recording()
    with recorded.attempt("primary", "cloud") as tape:
        tape._content_type = "application/json"
        tape._bytes = [msgspec.json.encode(completion({"content": "hi"}))]
    recorded.close(200)

    assert Keeping()(recorded).attempts[0].model == "gpt-4o-2024-08-06"
