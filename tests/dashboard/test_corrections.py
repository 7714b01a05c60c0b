from __future__ import annotations

import pytest

from proxy.auth import Caller
from proxy.dashboard.corrections import BadCorrection, parse
from proxy.dashboard.questions import Seen
from proxy.protocol.exchange import Answer

ANN = Caller("ops", "ann", is_admin=True)
TOOLS = (
    '[{"type":"function","function":{"name":"find","parameters":{"type":"object",'
    '"properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}}}]'
)


def seen(**fields: object) -> Seen:
    whole: dict[str, object] = {
        "id": "chatcmpl-1",
        "request_id": "req-1",
        "tenant": "acme",
        "caller": "app",
        "domain": "geo",
        "model": "gpt-4o",
        "conversation": "conv-1",
        "started_at": 1.0,
        "total_s": 1.0,
        "outcome": "completed",
        "status": 200,
        "is_kept": True,
        "messages": [],
        "tools": ["find"],
        "tools_json": TOOLS,
        "sides": [],
        "agreement": "",
        "judgements": [],
    }
    return Seen(**(whole | fields))


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ({"kind": "boolean", "value": "right"}, True),
        ({"kind": "boolean", "value": "wrong"}, False),
        ({"kind": "comment", "value": " too long "}, "too long"),
        ({"kind": "demonstration", "text": "Rome."}, Answer(text="Rome.")),
    ],
)
def test_form_becomes_feedback_of_the_exchange_s_tenant(form: dict[str, str], value: object):
    given = parse(form, seen(), ANN)

    assert (given.tenant, given.caller, given.exchange) == ("acme", "ann", "chatcmpl-1")
    assert given.value == value


def test_calls_are_taken_as_people_write_them():
    calls = '[{"name": "find", "arguments": {"city": "Rome"}}]'

    given = parse({"kind": "demonstration", "calls": calls}, seen(), ANN)

    assert isinstance(given.value, Answer)
    (call,) = given.value.tool_calls
    assert (call.function.name, call.function.arguments) == ("find", '{"city":"Rome"}')


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({}, "Say whether"),
        ({"kind": "float", "value": "1"}, "Say whether"),
        ({"kind": "comment", "value": "  "}, "empty"),
        ({"kind": "demonstration"}, "Give the calls"),
        ({"kind": "demonstration", "calls": "{"}, "no JSON list"),
        ({"kind": "demonstration", "calls": '[{"nam": "find"}]'}, "no JSON list"),
        ({"kind": "demonstration", "calls": "[" * 99_999}, "no JSON list"),
        ({"kind": "demonstration", "calls": '[{"name": "fly"}]'}, "does not allow"),
        (
            {"kind": "demonstration", "calls": '[{"name": "find", "arguments": {"city": 1}}]'},
            "does not allow",
        ),
    ],
)
def test_form_that_is_no_feedback_says_why(form: dict[str, str], why: str):
    with pytest.raises(BadCorrection, match=why):
        parse(form, seen(), ANN)


def test_calls_are_not_checked_where_the_tools_are_not_kept():
    calls = '[{"name": "anything"}]'

    given = parse({"kind": "demonstration", "calls": calls}, seen(tools_json=""), ANN)

    assert isinstance(given.value, Answer)
