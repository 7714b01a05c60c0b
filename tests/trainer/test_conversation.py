"""CEP/1: what must hold in a conversation of several steps."""

from __future__ import annotations

import msgspec
import pytest

from proxy.protocol.openai import FunctionCall, Message, PastCall
from tests.trainer.examples import WEATHER, row, weather
from trainer.conversation import expanded, fault, workflow
from trainer.rows import Row, Workflow

USER = Message(role="user", content="Rain?")
SYSTEM = Message(role="system", content="Be brief.")
SAID = Message(role="assistant", content="Where?")


def calls(*ids: str, name: str = "weather") -> Message:
    made = [PastCall(id=id, function=FunctionCall(name, "{}")) for id in ids]
    return Message(role="assistant", tool_calls=made)


def told(id: str) -> Message:
    return Message(role="tool", tool_call_id=id, content="rain")


def after(*messages: Message, **fields: object) -> Row:
    return msgspec.structs.replace(row(text="It rains."), messages=list(messages), **fields)


SOUND = {
    "a question": after(USER),
    "with a system": after(SYSTEM, USER),
    "a chain": after(USER, calls("a"), told("a"), calls("b"), told("b")),
    "parallel calls, in any order": after(USER, calls("a", "b"), told("b"), told("a")),
    "an error and its repair": after(USER, calls("a"), told("a"), SAID, USER),
    "a reminder in between": after(USER, calls("a"), told("a"), SYSTEM),
    "two users' turns": after(USER, USER),
    "an abandoned call": after(
        USER, calls("a"), USER, cep=Workflow(id="w", step=1, abandoned=["a"])
    ),
    "a tool that is gone": after(USER, calls("a", name="old"), told("a")),
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_conversation_has_no_fault(case):
    assert fault(SOUND[case]) is None


FAULTS = {
    "no_user": after(SYSTEM),
    "no_answer": after(USER, text=""),
    "roles_out_of_order": after(USER, SAID, SAID, USER),
    "result_answers_no_call": after(USER, calls("a"), told("b")),
    "call_unanswered": after(USER, calls("a", "b"), told("a"), USER),
    "calls_a_tool_not_offered": after(
        USER, calls("a", name="old"), told("a"), cep=Workflow(id="w", step=1)
    ),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_broken_invariant_is_named(reason):
    assert fault(FAULTS[reason]) == reason


@pytest.mark.parametrize("messages", [(USER, SAID), (SAID, USER)])
def test_the_assistant_speaks_neither_first_nor_before_itself(messages):
    assert fault(after(*messages)) == "roles_out_of_order"


def test_a_result_is_not_given_twice():
    assert fault(after(USER, calls("a"), told("a"), told("a"))) == "result_answers_no_call"


def test_a_format_with_one_call_a_message_takes_no_more():
    parallel = after(USER, functions=[WEATHER], calls=[weather(), weather("Rome")], text="")

    assert fault(parallel, most_calls=1) == "too_many_calls"
    assert fault(parallel, most_calls=2) is None


def test_an_answer_that_is_marked_as_a_mistake_is_context_only():
    whole = after(USER, calls("a"), told("a"), calls("b"), told("b"), unlearnt=[1])

    made = expanded(whole, most=6)

    assert [len(one.messages) for one in made] == [3, 5]
    assert [one.unlearnt for one in made] == [[1], [1]]


def test_a_step_is_counted_from_what_the_user_asked_last():
    made = workflow(after(USER, SAID, USER, calls("a"), told("a"), group="g"))

    assert (made.id, made.step, made.goal) == ("g#2", 1, "Rain?")


def test_what_is_answered_at_once_is_no_workflow():
    assert workflow(after(USER, SAID, USER)) is None
