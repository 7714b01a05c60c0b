"""A schema is what its draft, and `strict`, say; nothing is fetched, and all has bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from proxy.protocol.openai import (
    MalformedRequest,
)
from proxy.protocol.schemas import MOST_PATTERNS, BrokenSchema, compiled, patterns, validator
from proxy.protocol.toolcheck import Failure, check, check_tools
from tests.protocol.offers import call, described, function, request


def reason(failure: Failure | None) -> str | None:
    return failure.reason if failure else None


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


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("schema", "count"),
    [
        ({"type": "object"}, 0),
        ({"pattern": "a"}, 1),
        ({"patternProperties": {"a": {}, "b": {"pattern": "c"}}}, 3),
        ({"patternProperties": []}, 0),
        ({"items": [{"pattern": "a"}, {"not": {"pattern": "b"}}]}, 2),
    ],
)
def test_patterns_are_counted_wherever_they_are(schema: object, count: int) -> None:
    assert patterns(msgspec.json.encode(schema)) == count


def test_a_pattern_is_counted_however_its_name_is_spelt() -> None:
    assert patterns(rb'{"\u0070attern": "a"}') == 1


def test_more_patterns_than_are_taken_are_refused() -> None:
    def several(count: int) -> bytes:
        return msgspec.json.encode({"allOf": [{"pattern": f"a{n}"} for n in range(count)]})

    compiled(several(MOST_PATTERNS), strict=False)
    with pytest.raises(BrokenSchema, match="more than 200 patterns"):
        compiled(several(MOST_PATTERNS + 1), strict=False)


@pytest.mark.parametrize(("count", "is_kept"), [(0, True), (2, True), (3, False)])
def test_schemas_with_many_patterns_are_not_kept_compiled(count: int, is_kept: bool) -> None:
    schema = msgspec.json.encode({"title": "kept?", "allOf": [{}, *[{"pattern": "a"}] * count]})

    assert (compiled(schema, strict=False) is compiled(schema, strict=False)) == is_kept
