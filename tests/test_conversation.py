"""A conversation keeps its id from turn to turn, and its tools' results are judged."""

from __future__ import annotations

import msgspec
import pytest

from proxy.conversation import Conversation
from proxy.outcomes import OutcomeRules

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Ping a."}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "call_1", "function": {"name": "ping", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"error": "no route"}'}


def conversation(*messages: object, **fields: object) -> Conversation:
    return Conversation(msgspec.json.encode({"model": "m", "messages": messages, **fields}))


def test_later_turns_have_the_id_of_the_first():
    first = conversation(SYSTEM, USER).id("t")

    later = conversation(SYSTEM, USER, CALL, RESULT).id("t")

    assert first.startswith("conv-")
    assert later == first


@pytest.mark.parametrize(
    "other",
    [
        conversation(USER).id("t"),
        conversation(SYSTEM, USER | {"content": "Ping b."}).id("t"),
        conversation(SYSTEM, USER).id("another tenant"),
    ],
)
def test_another_beginning_or_tenant_is_another_conversation(other: str):
    assert other != conversation(SYSTEM, USER).id("t")


def test_text_in_parts_is_the_same_text():
    parts = [{"type": "text", "text": "Ping "}, {"type": "text", "text": "a."}]

    assert conversation(USER | {"content": parts}).id("t") == conversation(USER).id("t")


@pytest.mark.parametrize("name", ["conversation_id", "session_id"])
def test_metadata_names_the_conversation(name: str):
    assert conversation(USER, metadata={name: "mine"}).id("t") == "mine"


def test_header_comes_before_metadata():
    assert conversation(USER, metadata={"session_id": "mine"}).id("t", "header") == "header"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"messages": 1}', b"[" * 5000, b'{"input": "x"}'])
def test_body_of_another_form_has_no_conversation(body: bytes):
    assert Conversation(body).id("t") == ""
    assert Conversation(body).tool_results(OutcomeRules()) == []


def test_results_after_the_last_answer_are_judged():
    (result,) = conversation(USER, CALL, RESULT).tool_results(OutcomeRules())

    assert (result.tool_call_id, result.name, result.outcome) == ("call_1", "ping", "error")


def test_results_that_were_told_before_are_not_told_again():
    answer = {"role": "assistant", "content": "It is down."}

    assert conversation(USER, CALL, RESULT, answer, USER).tool_results(OutcomeRules()) == []
