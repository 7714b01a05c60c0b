"""Llama 3.1's calls: bare JSON objects, in the shapes that models of the family write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.formats.base import dumps
from proxy.protocol.formats.llama3 import Llama3
from proxy.protocol.openai import Function, FunctionCall
from tests.protocol.formats.calls import called, calls, objects

OSLO = FunctionCall("weather", '{"city": "Oslo"}')
LIMA = FunctionCall("weather", '{"city": "Lima; Peru"}')


@given(st.lists(calls, min_size=1, max_size=4))
def test_what_is_answered_is_what_is_parsed(answered):
    parsed = Llama3().parse(Llama3().answer(answered))

    assert (called(parsed), parsed.text, parsed.broken) == (answered, "", "")


@given(st.text(min_size=1), objects.map(dumps))
def test_an_answer_that_fills_a_shape_is_a_call_of_its_function(name, arguments):
    (shape,) = Llama3().constraint([Function(name)], required=True, many=False).shapes

    parsed = Llama3().parse(shape.begin + arguments + shape.end)

    assert called(parsed) == [FunctionCall(name, arguments)]


def test_every_answer_with_calls_begins_with_what_opens_a_call():
    assert Llama3().answer([OSLO, LIMA]).startswith(Llama3().opening)


@pytest.mark.parametrize(
    "written",
    [
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}',
        '{"type": "function", "name": "weather", "parameters": {"city": "Oslo"}}',
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
        ' {"name": "weather", "parameters": {"city": "Oslo"}};\n',
    ],
)
def test_the_shapes_that_the_family_writes_are_all_read(written):
    parsed = Llama3().parse(written)

    assert (called(parsed), parsed.text, parsed.broken) == ([OSLO], "", "")


@pytest.mark.parametrize("separator", ["; ", ";", "\n", " "])
def test_several_calls_are_read_whatever_stands_between_them(separator):
    written = separator.join(Llama3().answer([call]) for call in (OSLO, LIMA))

    assert called(Llama3().parse(written)) == [OSLO, LIMA]


def test_a_call_without_parameters_takes_none():
    assert called(Llama3().parse('{"name": "now"}')) == [FunctionCall("now", "{}")]


def test_text_before_the_first_call_is_text():
    parsed = Llama3().parse(f"Let me see.\n{Llama3().answer([OSLO])}")

    assert (parsed.text, called(parsed)) == ("Let me see.", [OSLO])


def test_an_answer_without_calls_is_text():
    parsed = Llama3().parse(" No function fits.\n")

    assert (parsed.text, parsed.calls, parsed.broken) == ("No function fits.", (), "")


@pytest.mark.parametrize(
    "written", ['{"name": "weather", "para', '{"name": 7}', '{"name": "a"} and so on']
)
def test_what_begins_as_a_call_and_is_none_is_broken(written):
    assert Llama3().parse(written).broken
