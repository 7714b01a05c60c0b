"""Structured API generation: one JSON object that names a tool and its arguments, or plain text."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import Parsed, dumps, render, template
from proxy.protocol.formats.structured import Structured, with_query
from proxy.protocol.openai import Function, FunctionCall, Message, ToolCall
from tests.protocol.formats.calls import called, calls, objects

WEATHER = FunctionCall("weather", '{"city": "Oslo"}')


@given(calls)
def test_what_is_answered_is_what_is_parsed(answered):
    parsed = Structured().parse(Structured().answer([answered]))

    assert (called(parsed), parsed.text, parsed.broken) == ([answered], "", "")


@given(st.text(min_size=1), objects.map(dumps))
def test_an_answer_that_fills_a_shape_is_a_call_of_its_function(name, arguments):
    constraint = Structured().constraint([Function(name)], required=True, many=False)
    (shape,) = constraint.shapes

    parsed = Structured().parse(shape.begin + arguments + shape.end)

    assert called(parsed) == [FunctionCall(name, arguments)]


def test_every_shape_begins_with_the_trigger():
    offered = [Function("weather"), Function("zeit_für_tee")]

    constraint = Structured().constraint(offered, required=False, many=False)

    assert [s.begin.startswith(constraint.trigger) for s in constraint.shapes] == [True, True]


def test_one_call_is_all_that_an_answer_may_hold():
    assert not Structured().constraint([Function("weather")], required=True, many=True).many


def test_several_calls_cannot_be_answered():
    with pytest.raises(ValueError):
        Structured().answer([WEATHER, WEATHER])


def test_an_answer_that_is_no_object_is_text():
    assert Structured().parse(" No tool does that.\n") == Parsed("No tool does that.")


def test_space_around_the_object_is_no_part_of_it():
    assert called(Structured().parse(f"\n {Structured().answer([WEATHER])} \n")) == [WEATHER]


@pytest.mark.parametrize(
    "written",
    [
        '{"tool_name": "weather", "argum',
        '{"arguments": {}}',
        '{"tool_name": 7, "arguments": {}}',
        '{"tool_name": "weather", "arguments": {}} and more',
        pytest.param('{"tool_name": "weather", "arguments": ' + "[" * 5000, id="without a bottom"),
    ],
)
def test_an_object_that_is_no_call_is_broken_and_is_kept_as_it_was_written(written):
    assert Structured().parse(written) == Parsed("", broken=written)


def test_the_pitchs_object_has_its_three_keys_in_order():
    shown = with_query(FunctionCall("schedule_by_date", '{"date": "1. März"}'), "Was läuft?")

    assert shown == (
        '{"arguments": {"date": "1. März"}, "query": "Was läuft?", "tool_name": "schedule_by_date"}'
    )


@given(calls, st.text())
def test_the_pitchs_object_says_what_the_call_and_the_user_said(call, query):
    shown = msgspec.json.decode(with_query(call, query))

    assert shown == {
        "arguments": msgspec.json.decode(call.arguments),
        "query": query,
        "tool_name": call.name,
    }


def test_an_echo_repeats_what_the_user_said_after_the_call():
    written = Structured(echo=True).answer([WEATHER], 'Rain in "Oslo"?')

    assert written == (
        '{"tool_name": "weather", "arguments": {"city": "Oslo"}, "query": "Rain in \\"Oslo\\"?"}'
    )


def test_earlier_echoes_are_shown_with_the_words_that_they_repeat():
    said = [
        Message(role="user", content="Rain in Oslo?"),
        Message(role="assistant", tool_calls=[ToolCall(id="a", function=WEATHER)]),
        Message(role="tool", tool_call_id="a", content="no"),
        Message(role="user", content="And snow?"),
    ]

    shown = render(template("structured-echo"), said, [Function("weather")])

    written = Structured(echo=True).answer([WEATHER], "Rain in Oslo?")
    assert f"<|im_start|>assistant\n{written}<|im_end|>" in shown


@pytest.mark.parametrize("name", FORMATS)
@given(answered=calls, query=st.text())
def test_every_format_parses_what_it_writes(name, answered, query):
    parsed = FORMATS[name].parse(FORMATS[name].answer([answered], query))

    assert (called(parsed), parsed.text, parsed.broken) == ([answered], "", "")
