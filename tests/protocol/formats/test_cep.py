"""CEP/1: steps in tags towards a goal, plain words at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.formats.base import dumps, render, template
from proxy.protocol.formats.cep import Cep
from proxy.protocol.openai import Function, FunctionCall, Message, ToolCall
from tests.protocol.formats.calls import called, calls, objects

FIND = FunctionCall("find_bus", '{"to": "Oslo"}')


@given(st.lists(calls, min_size=1, max_size=3))
def test_what_is_answered_is_what_is_parsed(answered):
    parsed = Cep().parse(Cep().answer(answered))

    assert (called(parsed), parsed.text, parsed.broken) == (answered, "", "")


@given(st.text(min_size=1), objects.map(dumps))
def test_an_answer_that_fills_a_shape_is_a_call_of_its_function(name, arguments):
    (shape,) = Cep().constraint([Function(name)], required=True, many=False).shapes

    parsed = Cep().parse(shape.begin + arguments + shape.end)

    assert called(parsed) == [FunctionCall(name, arguments)]


def test_plain_words_end_the_work():
    assert Cep().parse("Booked.").text == "Booked."


@pytest.mark.parametrize("written", ['<step>\n{"tool": "find_bus", "arg', '<step>{"name": "x"}'])
def test_a_step_that_is_none_is_broken(written):
    assert Cep().parse(written).broken == written


def test_earlier_steps_are_shown_as_they_were_written_and_with_what_came_of_them():
    said = [
        Message(role="user", content="A ticket to Oslo, please."),
        Message(role="assistant", tool_calls=[ToolCall(id="a", function=FIND)]),
        Message(role="tool", tool_call_id="a", content="bus 7"),
    ]

    shown = render(template("cep"), said, [Function("find_bus"), Function("buy_ticket")])

    assert f"<|im_start|>assistant\n{Cep().answer([FIND])}<|im_end|>" in shown
    assert "<|im_start|>tool\n<result>\nbus 7\n</result><|im_end|>" in shown
    assert shown.endswith("<|im_start|>assistant\n")
