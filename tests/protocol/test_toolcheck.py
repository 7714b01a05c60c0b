"""A call that passes is one that the request's own schema allows; any other has a reason."""

from __future__ import annotations

import pytest

from proxy.protocol.openai import (
    ChatRequest,
    MalformedRequest,
    ToolCall,
)
from proxy.protocol.toolcheck import Failure, check, check_answer_format, check_tools
from tests.protocol.offers import WEATHER, call, function, request


def reason(failure: Failure | None) -> str | None:
    return failure.reason if failure else None


OFFER = request(function(parameters=WEATHER))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city":"Oslo"}', None),
        ('{"city":"Oslo","days":2,"unit":"C","on":"2026-01-30"}', None),
        ('{"city":"Oslo","days":2.0}', None),
        ('{"city":"Oslo","more":1}', None),
        ('{"city":"Oslo"', "arguments_not_json"),
        ('{"city":NaN}', "arguments_not_json"),
        ('{"city":"Oslo","more":1e400}', "arguments_not_json"),
        ('{"city":7,"city":"Oslo"}', "arguments_not_json"),
        ('{"city":"Oslo","more":[{"a":1,"\\u0061":2}]}', "arguments_not_json"),
        ('{"city":"Oslo"} {}', "arguments_not_json"),
        ("[" * 100_000, "arguments_not_json"),
        ('["Oslo"]', "arguments_not_object"),
        ('"Oslo"', "arguments_not_object"),
        ("", "schema_violation"),
        ("{}", "schema_violation"),
        ('{"city":7}', "schema_violation"),
        ('{"city":"Oslo","days":"2"}', "schema_violation"),
        ('{"city":"Oslo","days":0}', "schema_violation"),
        ('{"city":"Oslo","unit":"c"}', "schema_violation"),
        ('{"city":"Oslo","on":"tomorrow"}', "schema_violation"),
        ('{"city":"Oslo","labels":{"a":1}}', "schema_violation"),
    ],
)
def test_arguments_are_what_the_schema_allows(arguments: str, expected: str | None) -> None:
    assert reason(check([call(arguments)], OFFER)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{}", "a call of 'weather': $ lacks the required property 'city'"),
        ('{"city":7}', "a call of 'weather': $.city is not of type string"),
        ('{"city":"a","unit":"s3cret"}', "a call of 'weather': $.unit breaks the schema's 'enum'"),
        ('{"city":"a","labels":{"s3cret":1}}', "a call of 'weather': $.labels.* is not of type"),
        ('{"city":"s3cret"', "the arguments of 'weather' are not valid JSON"),
    ],
)
def test_the_message_names_the_place_and_not_the_value(arguments: str, message: str) -> None:
    failure = check([call(arguments)], OFFER)

    assert failure is not None
    assert failure.message.startswith(message)
    assert "s3cret" not in failure.message


def test_the_failure_says_which_call_it_is_about() -> None:
    failure = check([call(), call("{}"), call("[")], OFFER)

    assert failure is not None
    assert failure.index == 1


def test_a_tool_that_is_not_offered_is_unknown() -> None:
    failure = check([call(name="s3cret")], OFFER)

    assert reason(failure) == "unknown_tool"
    assert "s3cret" not in str(failure)


def test_the_first_failure_is_the_one_that_is_told() -> None:
    assert reason(check([call(), call("["), call(name="x")], OFFER)) == "arguments_not_json"


def test_a_custom_tool_has_no_schema_and_never_fails_for_it() -> None:
    offer = request({"type": "custom", "custom": {"name": "shell"}})

    assert check([call("rm -rf {", name="shell")], offer) is None
    assert reason(check([call(name="weather")], offer)) == "unknown_tool"


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", None), (" ", None), ("{}", None), ('{"a":1}', "schema_violation")],
)
def test_a_function_without_parameters_takes_nothing(
    parameters: dict[str, None], arguments: str, expected: str | None
) -> None:
    offer = request({"type": "function", "function": {"name": "weather", **parameters}})

    assert reason(check([call(arguments)], offer)) == expected


# ---------------------------------------------------------------- tool_choice

NAMED = {"type": "function", "function": {"name": "weather"}}
OTHER = {"type": "function", "function": {"name": "other"}}


def allowed(mode: str, *tools: object) -> dict[str, object]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("choice", "calls", "expected"),
    [
        ("auto", [], None),
        ("auto", [call()], None),
        ("none", [], None),
        ("none", [call()], "tool_not_allowed"),
        ("required", [], "missing_call"),
        ("required", [call()], None),
        (NAMED, [], "missing_call"),
        (NAMED, [call()], None),
        (OTHER, [call()], "tool_not_allowed"),
        (allowed("auto", NAMED), [], None),
        (allowed("auto", NAMED), [call()], None),
        (allowed("auto", OTHER), [call()], "tool_not_allowed"),
        (allowed("required", NAMED), [], "missing_call"),
        ({"type": "custom", "custom": {"name": "other"}}, [call()], "tool_not_allowed"),
    ],
)
def test_the_tool_choice_is_kept(
    choice: object, calls: list[ToolCall], expected: str | None
) -> None:
    offer = request(function(parameters=WEATHER), function("other"), tool_choice=choice)

    assert reason(check(calls, offer)) == expected


def test_one_call_is_the_limit_without_parallel_calls() -> None:
    offer = request(function(parameters=WEATHER), parallel_tool_calls=False)

    assert check([call()], offer) is None
    assert reason(check([call(), call()], offer)) == "too_many_calls"


def test_two_tools_of_one_name_are_refused() -> None:
    twice = request(function("a"), function("b"), function("a"))

    with pytest.raises(MalformedRequest, match="'a' is offered twice") as raised:
        check_tools(twice)

    assert raised.value.param == "$.tools[2].function.name"


def test_two_custom_tools_without_a_name_are_refused_as_such() -> None:
    nameless = {"type": "custom", "custom": {}}

    with pytest.raises(MalformedRequest, match="'' is offered twice"):
        check_tools(request(nameless, nameless))


# ---------------------------------------------------------------- response_format


def asked(schema: object, strict: bool = False) -> ChatRequest:
    about = {"name": "answer", "schema": schema, "strict": strict}
    return request(response_format={"type": "json_schema", "json_schema": about})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"city":"Oslo"}', None),
        ('{"city":7}', "answer_schema_violation"),
        ("Oslo", "answer_not_json"),
        ("", "answer_not_json"),
    ],
)
def test_an_answer_is_what_the_response_format_asks_for(text: str, expected: str | None) -> None:
    assert reason(check_answer_format(text, asked(WEATHER))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", None), ("[]", "answer_not_object"), ("no", "answer_not_json")],
)
def test_a_json_object_is_asked_for(text: str, expected: str | None) -> None:
    offer = request(response_format={"type": "json_object"})

    assert reason(check_answer_format(text, offer)) == expected


def test_a_json_schema_that_is_missing_asks_for_an_object() -> None:
    offer = request(response_format={"type": "json_schema"})

    assert reason(check_answer_format("[]", offer)) == "answer_not_object"
    assert check_answer_format("{}", offer) is None


def test_text_needs_no_form() -> None:
    assert check_answer_format("Oslo", request()) is None
    assert check_answer_format("Oslo", request(response_format={"type": "text"})) is None


def test_a_broken_response_format_is_refused_with_its_place() -> None:
    with pytest.raises(MalformedRequest) as raised:
        check_tools(asked({"type": "dict"}))

    assert raised.value.param == "$.response_format.json_schema.schema"
