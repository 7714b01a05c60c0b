"""Hard negatives: they look like calls, and no tool that is left fits."""

from __future__ import annotations

import msgspec
import pytest

from proxy.protocol.openai import Function, FunctionCall
from tests.trainer.examples import function, row
from trainer.curate.negatives import fits, hard

ROOM = function("find_room", city="string", guests="integer")
RIGHT = FunctionCall("find_room", '{"city": "Oslo", "guests": 2}')
ASKED = row(RIGHT, question="Find me a room in Oslo for 2 people", functions=(ROOM,))
SIMILAR = function("cancel_room", booking="string")
SAME = function("find_a_room", town="string")
UNITS = Function(
    "convert_heat",
    "Converts heat.",
    msgspec.Raw(
        b'{"type":"object","properties":{"unit":{"enum":["celsius","kelvin"]}},"required":["unit"]}'
    ),
)
OTHER_UNITS = Function(
    "convert_length",
    "Converts length.",
    msgspec.Raw(b'{"type":"object","properties":{"unit":{"enum":["furlong"]}}}'),
)


def made(kind: str, of=ASKED, pool=(ROOM, SIMILAR, SAME)):
    return [one for one, _ in hard([of], [0], pool, [kind], 1, 0)]


@pytest.mark.parametrize(
    ("other", "may"),
    [
        (SAME, True),
        (function("room", label="string"), True),
        (function("lodge", city="string", guests="integer"), True),
        (function("lodge", city="string"), False),
        (SIMILAR, False),
        (function("lodge", city="string", guests="integer", key="string"), False),
    ],
)
def test_a_tool_that_may_do_the_same_is_told_apart(other, may):
    assert fits(other, ROOM, RIGHT) is may


def test_a_similar_tool_stays_and_all_that_fit_go():
    (one,) = made("similar_tool")

    assert [f.name for f in one.functions] == ["cancel_room"]
    assert (one.calls, one.label.kind) == ([], "synthetic")
    assert one.text


def test_without_a_similar_tool_there_is_no_such_negative():
    assert made("similar_tool", pool=(ROOM, SAME, function("tides"))) == []


def test_what_the_tool_must_know_is_asked_for():
    (one,) = made("missing_parameter")

    gone = {"city": "Oslo", "guests": "2"}[one.text.removesuffix(".").split()[-1]]
    assert gone not in one.question
    assert one.functions == ASKED.functions


def test_what_is_said_twice_is_not_missing():
    twice = row(
        FunctionCall("find_room", '{"city": "Oslo"}'),
        question="Oslo, a room in Oslo please",
        functions=(function("find_room", city="string"),),
    )

    assert made("missing_parameter", twice) == []


def test_a_variant_that_the_schema_does_not_have_is_wanted():
    asked = row(
        FunctionCall("convert_heat", '{"unit": "celsius"}'),
        question="Convert that heat to celsius",
        functions=(UNITS,),
    )

    (one,) = made("unsupported_value", asked, (UNITS, OTHER_UNITS))

    assert one.question == "Convert that heat to furlong"
    assert one.calls == []


def test_no_more_are_made_than_wanted():
    rows = [ASKED] * 10

    assert len(list(hard(rows, range(10), (ROOM, SIMILAR), ["similar_tool"], 3, 0))) == 3


@pytest.mark.parametrize("kind", ["similar_tool", "missing_parameter", "unsupported_value"])
def test_arguments_that_are_no_texts_are_no_trouble(kind):
    odd = row(
        FunctionCall("find_room", '{"city": ["Oslo", {"a": 1}], "guests": null, "on": true}'),
        functions=(ROOM,),
    )

    assert len(made(kind, odd)) <= 1
