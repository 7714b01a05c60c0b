"""A repaired call says what the model said, in the form that the schema wants; all else stays."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.openai import ChatRequest, FunctionCall, ToolCall, parse_request
from proxy.protocol.repair import repair
from proxy.protocol.toolcheck import check

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "at": {"type": "array", "items": {"type": "number"}},
        "unit": {"enum": ["Celsius", "Fahrenheit"]},
        "deep": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        "on": {"type": "boolean"},
        "same": {"enum": ["a", "A"]},
    },
    "additionalProperties": False,
}


def request() -> ChatRequest:
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    said = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    return parse_request(msgspec.json.encode(said))


def call(arguments: str, name: str = "weather") -> ToolCall:
    return ToolCall("call_1", FunctionCall(name, arguments))


@pytest.mark.parametrize(
    ("wrote", "gets", "codes"),
    [
        ("{city: 'Oslo',}", {"city": "Oslo"}, ["json_syntax"]),
        ('{"days": "3"}', {"days": 3}, ["number"]),
        ('{"days": " 3.0 "}', {"days": 3}, ["number"]),
        ('{"at": "1.5"}', {"at": [1.5]}, ["array", "number"]),
        ('{"at": [1, "2"]}', {"at": [1, 2]}, ["number"]),
        ('{"unit": "celsius"}', {"unit": "Celsius"}, ["enum_case"]),
        ('{"deep": "7"}', {"deep": 7}, ["number"]),
        ('{"on": "true"}', {"on": True}, ["boolean"]),
        ("{days: '3', unit: 'FAHRENHEIT'}", None, ["json_syntax", "number", "enum_case"]),
    ],
)
def test_form_is_put_right(wrote, gets, codes):
    repaired = repair([call(wrote)], request())

    assert repaired is not None
    assert sorted(repaired.codes) == sorted(codes)
    arguments = msgspec.json.decode(repaired.calls[0].function.arguments)
    assert arguments == (gets or {"days": 3, "unit": "Fahrenheit"})
    assert repaired.calls[0].id == "call_1"


@pytest.mark.parametrize(
    "wrote",
    [
        '{"days": "three"}',
        '{"days": "3.5"}',
        '{"days": "0x10"}',
        '{"days": "1e999"}',
        '{"days": "3", "days": "4"}',
        '{"unit": "Kelvin"}',
        '{"same": "ª"}',
        '{"town": "Oslo"}',
        '{"city": 3}',
        '{"city": "Os',
        "{days: Infinity}",
        "[" * 5000,
        "not JSON at all",
    ],
)
def test_what_would_be_a_guess_is_left(wrote):
    assert repair([call(wrote)], request()) is None


def test_enum_members_that_differ_in_case_only_are_not_confused():
    assert repair([call('{"same": "a "}')], request()) is None


def test_one_call_that_stays_wrong_leaves_all_as_they_were():
    assert repair([call('{"days": "3"}'), call("{}", "unknown")], request()) is None


def test_good_calls_beside_a_mended_one_keep_their_bytes():
    good = call('{ "city" : "Oslo" }')

    repaired = repair([good, call('{"days": "3"}')], request())

    assert repaired is not None
    assert repaired.calls[0] is good


def test_nothing_to_mend_is_no_repair():
    assert repair([call('{"city": "Oslo"}')], request()) is None


@given(st.text(max_size=200))
def test_whatever_the_model_writes_only_valid_calls_come_out(wrote):
    repaired = repair([call(wrote)], request())

    assert repaired is None or check(repaired.calls, request()) is None
