"""A call that passes is one that the request's own schema allows; any other has a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from proxy.protocol.openai import (
    ChatRequest,
    Function,
    FunctionCall,
    MalformedRequest,
    ToolCall,
    parse_request,
)
from proxy.protocol.toolcheck import (
    Failure,
    check,
    check_answer_format,
    check_tools,
    fingerprint,
    fingerprint_offered,
    fingerprint_tools,
    validator,
)

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["C", "F"]},
        "on": {"type": "string", "format": "date"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["city"],
}


def function(name: str = "weather", **fields: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **fields}}


def request(*tools: object, **fields: object) -> ChatRequest:
    said = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools, **fields}
    return parse_request(msgspec.json.encode(said))


def call(arguments: str = '{"city":"Oslo"}', name: str = "weather") -> ToolCall:
    return ToolCall("call_1", FunctionCall(name, arguments))


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


# ---------------------------------------------------------------- schemas

TREE = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "integer"}},
        }
    },
}


def test_references_inside_the_schema_are_followed() -> None:
    offer = request(function(parameters=TREE))

    assert check([call('{"root":{"next":{"value":1}}}')], offer) is None
    failure = check([call('{"root":{"next":{"value":"1"}}}')], offer)
    assert failure is not None
    assert "$.root.next.value" in failure.message


def test_the_draft_that_a_schema_names_is_the_one_that_is_used() -> None:
    tuple_of_draft_7 = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"pair": {"type": "array", "items": [{"type": "integer"}]}},
    }
    offer = request(function(parameters=tuple_of_draft_7))

    check_tools(offer)
    assert reason(check([call('{"pair":["a"]}')], offer)) == "schema_violation"


@pytest.mark.parametrize("named", ["urn:mine", ""])
def test_a_draft_that_nobody_knows_is_taken_for_the_newest(named: object) -> None:
    pair = {"type": "array", "prefixItems": [{"type": "integer"}]}
    offer = request(function(parameters={"$schema": named, "properties": {"pair": pair}}))

    assert reason(check([call('{"pair":["a"]}')], offer)) == "schema_violation"


def test_a_strict_function_takes_no_other_properties_at_any_depth() -> None:
    nested = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}}}}
    strict = request(function(parameters=nested, strict=True))
    lenient = request(function(parameters=nested))

    assert check([call('{"a":{"b":1}}')], strict) is None
    assert reason(check([call('{"a":{"c":1}}')], strict)) == "schema_violation"
    assert reason(check([call('{"c":1}')], strict)) == "schema_violation"
    assert check([call('{"a":{"c":1},"d":1}')], lenient) is None


INNER = {"type": "object", "properties": {"b": {}}}


@pytest.mark.parametrize(
    ("a", "fits", "breaks"),
    [
        ({"items": INNER}, '[{"b":1}]', '[{"c":1}]'),
        ({"additionalProperties": INNER}, '{"x":{"b":1}}', '{"x":{"c":1}}'),
        ({"anyOf": [INNER, {"type": "null"}]}, '{"b":1}', '{"c":1}'),
        ({"prefixItems": [{}, INNER]}, '[0,{"b":1}]', '[0,{"c":1}]'),
    ],
)
def test_a_strict_function_is_strict_in_lists_and_alternatives(a, fits, breaks) -> None:
    whole = {"type": "object", "properties": {"a": a}}
    offer = request(function(parameters=whole, strict=True))

    assert check([call(f'{{"a":{fits}}}')], offer) is None
    assert reason(check([call(f'{{"a":{breaks}}}')], offer)) == "schema_violation"


@pytest.mark.parametrize(
    "open_", [INNER | {"additionalProperties": True}, INNER | {"allOf": [{"type": "object"}]}]
)
def test_a_strict_function_may_say_itself_what_else_it_takes(open_: object) -> None:
    offer = request(function(parameters=open_, strict=True))

    assert check([call('{"c":1}')], offer) is None


def test_a_property_that_is_not_allowed_is_not_quoted() -> None:
    failure = check([call('{"s3cret":1}')], request(function(parameters=INNER, strict=True)))

    assert failure is not None
    assert failure.message == "a call of 'weather': $ has a property that is not allowed"


def test_a_large_schema_is_compiled_anew_so_that_the_memory_stays_bounded() -> None:
    empty = len(b'{"title":""}')
    kept, large = (
        described(parameters={"title": "x" * (size - empty)}) for size in (64 * 1024, 64 * 1024 + 1)
    )

    assert validator(kept) is validator(kept)
    assert validator(large) is not validator(large)
    assert validator(large).is_valid({})


def test_what_is_wrong_with_a_schema_is_told_in_200_characters() -> None:
    broken = request(function(parameters={"type": "x" * 1000}))

    with pytest.raises(MalformedRequest) as raised:
        check_tools(broken)

    said, _, place = str(raised.value).removeprefix("not a valid JSON Schema: ").partition(", in ")
    assert (len(said), place.split()[0]) == (200, "$.type")


def test_a_property_may_be_named_like_a_keyword() -> None:
    named = {"type": "object", "properties": {"properties": {"type": "string"}}}
    offer = request(function(parameters=named, strict=True))

    assert check([call('{"properties":"x"}')], offer) is None


def test_a_pattern_that_backtracks_without_end_is_given_up() -> None:
    evil = {"type": "object", "properties": {"a": {"pattern": r"^(a|aa)+(?!x)c\1"}}}
    offer = request(function(parameters=evil))

    assert reason(check([call('{"a":"' + "a" * 5000 + '"}')], offer)) == "schema_violation"


def test_a_schema_that_refers_to_itself_only_ends() -> None:
    offer = request(function(parameters={"allOf": [{"$ref": "#"}]}))

    assert check([call("{}")], offer) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"type": "dict"}, "not a valid JSON Schema"),
        ({"type": "object", "properties": {"a": {"type": "str"}}}, r"in \$\.properties\.a\.type"),
        ({"pattern": "("}, "not a valid JSON Schema"),
        ({"$ref": "#/$defs/gone"}, "leads nowhere"),
        ([], "must be a JSON object"),
        ("{}", "must be a JSON object"),
    ],
)
def test_a_broken_schema_is_refused_with_its_place(parameters: object, message: str) -> None:
    broken = request(function("fine"), function(parameters=parameters))

    with pytest.raises(MalformedRequest, match=message) as raised:
        check_tools(broken)

    assert raised.value.param == "$.tools[1].function.parameters"


@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_without_a_bottom_is_refused(strict: bool) -> None:
    deep = b'{"properties":{"a":' * 300 + b"{}" + b"}}" * 300
    broken = request(function(parameters=msgspec.Raw(deep), strict=strict))

    with pytest.raises(MalformedRequest):
        check_tools(broken)


@pytest.fixture
def schema_server() -> Iterator[tuple[str, list[str]]]:
    """URL of a schema that could be fetched, and the paths that were."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/schema.json", fetched
        server.shutdown()


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema"])
def test_remote_schemas_are_never_fetched(
    keyword: str, schema_server: tuple[str, list[str]]
) -> None:
    url, fetched = schema_server

    with suppress(MalformedRequest):
        check_tools(request(function(parameters={keyword: url})))

    assert fetched == []


def test_files_are_never_read(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text("{}")

    with pytest.raises(MalformedRequest, match="others are not followed"):
        check_tools(request(function(parameters={"$ref": schema.as_uri()})))


def test_two_tools_of_one_name_are_refused() -> None:
    twice = request(function("a"), function("b"), function("a"))

    with pytest.raises(MalformedRequest, match="'a' is offered twice") as raised:
        check_tools(twice)

    assert raised.value.param == "$.tools[2].function.name"


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


# ---------------------------------------------------------------- fingerprints


def described(name: str = "weather", **fields: object) -> Function:
    return request(function(name, **fields)).offered[0]


def test_a_fingerprint_does_not_depend_on_wording_or_key_order() -> None:
    polished = {
        "required": ["a"],
        "properties": {"a": {"description": "The city.", "type": "string"}},
        "type": "object",
        "title": "Weather",
    }
    plain = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    assert fingerprint(described(parameters=polished, description="Tells the weather.")) == (
        fingerprint(described(parameters=plain))
    )


@pytest.mark.parametrize("where", ["items", "anyOf", "additionalProperties"])
def test_a_fingerprint_does_not_depend_on_wording_in_lists_and_alternatives(where: str) -> None:
    def whole(**inner: object) -> Function:
        part = {"type": "string"} | inner
        return described(parameters={where: [part] if where == "anyOf" else part})

    assert fingerprint(whole(description="The city.")) == fingerprint(whole())
    assert fingerprint(whole(minLength=1)) != fingerprint(whole())


@pytest.mark.parametrize(
    "other",
    [
        described("forecast", parameters=WEATHER),
        described(parameters=WEATHER | {"required": []}),
        described(parameters=WEATHER | {"properties": {"title": {"type": "string"}}}),
        described(parameters=WEATHER | {"properties": {"description": {"type": "string"}}}),
        described(),
    ],
)
def test_a_fingerprint_depends_on_the_name_and_on_what_is_allowed(other: Function) -> None:
    assert fingerprint(other) != fingerprint(described(parameters=WEATHER))


def test_a_fingerprint_has_a_fixed_form() -> None:
    # Written into adapter bundles: a change of form takes every adapter out of service.
    canonical = b'{"name":"weather","parameters":{"additionalProperties":false,"type":"object"}}'

    assert fingerprint(described()) == f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def test_parameters_that_are_no_schema_have_no_fingerprint() -> None:
    with pytest.raises(MalformedRequest, match="'weather'"):
        fingerprint(described(parameters=[]))


def test_the_fingerprint_of_tools_does_not_depend_on_their_order() -> None:
    one, two = described("a"), described("b")

    assert fingerprint_tools([one, two]) == fingerprint_tools([two, one])
    assert fingerprint_tools([one, two]) != fingerprint_tools([one])


CUSTOM = {"type": "custom", "custom": {"name": "shell"}}


@pytest.mark.parametrize("remembered", [True, False])
def test_the_fingerprint_of_an_offer_is_that_of_its_functions(remembered: bool) -> None:
    offer = request(function("a"), CUSTOM, function("b"))
    known = offer if remembered else msgspec.structs.replace(offer, tools_json=b"")

    assert bool(known.tools_json) == remembered
    assert fingerprint_offered(known) == fingerprint_tools([described("b"), described("a")])


@pytest.mark.parametrize("remembered", [True, False])
def test_an_offer_without_functions_has_no_fingerprint(remembered: bool) -> None:
    offer = request(CUSTOM)
    known = offer if remembered else msgspec.structs.replace(offer, tools_json=b"")

    assert bool(known.tools_json) == remembered
    assert fingerprint_offered(known) is None


def test_two_custom_tools_without_a_name_are_refused_as_such() -> None:
    nameless = {"type": "custom", "custom": {}}

    with pytest.raises(MalformedRequest, match="'' is offered twice"):
        check_tools(request(nameless, nameless))
