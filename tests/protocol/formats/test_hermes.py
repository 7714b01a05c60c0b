"""Hermes: calls in tags, text around them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.formats.base import Parsed, dumps
from proxy.protocol.formats.hermes import Hermes
from proxy.protocol.openai import Function, FunctionCall
from tests.protocol.formats.calls import called, calls, objects

WEATHER = FunctionCall("weather", '{"city": "Oslo"}')
TIME = FunctionCall("time", "{}")


@given(st.lists(calls, min_size=1, max_size=3))
def test_what_is_answered_is_what_is_parsed(answered):
    parsed = Hermes().parse(Hermes().answer(answered))

    assert (called(parsed), parsed.text, parsed.broken) == (answered, "", "")


@given(st.text(min_size=1), objects.map(dumps))
def test_an_answer_that_fills_a_shape_is_a_call_of_its_function(name, arguments):
    constraint = Hermes().constraint([Function(name)], required=True, many=False)
    (shape,) = constraint.shapes

    parsed = Hermes().parse(shape.begin + arguments + shape.end)

    assert called(parsed) == [FunctionCall(name, arguments)]


def test_every_shape_begins_with_the_trigger():
    offered = [Function("weather"), Function("zeit_für_tee")]

    constraint = Hermes().constraint(offered, required=False, many=True)

    assert [s.begin.startswith(constraint.trigger) for s in constraint.shapes] == [True, True]


def test_a_shape_takes_its_arguments_from_the_functions_schema():
    offered = Function("weather", parameters=msgspec.Raw(b'{"type":"object"}'))

    constraint = Hermes().constraint([offered], required=False, many=True)

    assert bytes(constraint.shapes[0].schema) == b'{"type":"object"}'


def test_a_shape_of_a_function_without_a_schema_takes_no_arguments():
    constraint = Hermes().constraint([Function("ping")], required=False, many=True)

    assert b'"additionalProperties":false' in bytes(constraint.shapes[0].schema)


def test_text_without_a_tag_is_text():
    assert Hermes().parse(" No tool does that.\n") == Parsed("No tool does that.")


def test_text_may_stand_before_the_call():
    parsed = Hermes().parse("I look it up.\n" + Hermes().answer([WEATHER]))

    assert (parsed.text, called(parsed)) == ("I look it up.", [WEATHER])


def test_the_closing_tag_may_be_missing_at_the_end():
    parsed = Hermes().parse(Hermes().answer([WEATHER]).removesuffix("</tool_call>"))

    assert (called(parsed), parsed.broken) == ([WEATHER], "")


def test_a_call_without_arguments_has_none():
    parsed = Hermes().parse('<tool_call>{"name": "time"}</tool_call>')

    assert called(parsed) == [TIME]


def test_a_torn_call_is_broken_and_is_kept_as_it_was_written():
    parsed = Hermes().parse('<tool_call>\n{"name": "weather", "argum')

    assert parsed == Parsed("", broken='<tool_call>\n{"name": "weather", "argum')


def test_a_call_that_names_no_tool_is_broken():
    assert Hermes().parse('<tool_call>{"arguments": {}}</tool_call>').broken


def test_calls_before_a_broken_one_are_kept():
    parsed = Hermes().parse(Hermes().answer([WEATHER]) + "<tool_call>{")

    assert (called(parsed), parsed.broken) == ([WEATHER], "<tool_call>{")


def test_each_parsed_call_has_an_id_of_its_own():
    first, second = Hermes().parse(Hermes().answer([TIME, TIME])).calls

    assert first.id != second.id
