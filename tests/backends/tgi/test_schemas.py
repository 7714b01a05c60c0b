"""The guard before TGI's grammar compiler: what passes compiles quickly, what is odd stays out.

What passes here was given to the compiler itself once (outlines-core 0.1.14, docs/LOG.md).
"""

from __future__ import annotations

import msgspec
import pytest

from proxy.backends.tgi.schemas import MAX_BYTES, MAX_DEPTH, MAX_REPEAT, objection

TEXT = {"type": "string"}


def objected(schema: object) -> str | None:
    return objection(msgspec.json.encode(schema))


def with_a(schema: object) -> dict[str, object]:
    """An object whose one property, `a`, has this schema."""
    return {"type": "object", "properties": {"a": schema}}


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = with_a(schema)
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {}},
        {"properties": {"a": TEXT}},
        {"type": "object", "properties": {"a": TEXT, "b": {"type": "integer"}}, "required": ["a"]},
        with_a({"type": "string", "enum": ["x", 'y"', None]}),
        with_a({"enum": ["x", "y"]}),
        with_a({"type": "boolean", "const": True}),
        with_a({"type": "null"}),
        with_a({"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3}),
        with_a({"anyOf": [TEXT, {"type": "null"}], "description": "A town"}),
        with_a({"type": "string", "format": "date", "title": "When"}),
        with_a({"type": "string", "minLength": 1, "maxLength": MAX_REPEAT}),
        with_a({"type": "integer", "minimum": 0, "maximum": 9}),
        with_a(with_a(TEXT) | {"additionalProperties": False}),
        nested(MAX_DEPTH),
        {"type": "object", "properties": {f"p{n}": TEXT for n in range(60)}, "required": ["p0"]},
    ],
    ids=str,
)
def test_an_ordinary_schema_passes(schema):
    assert objected(schema) is None


RECURSIVE = with_a({"$ref": "#/$defs/node"}) | {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}
}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (RECURSIVE, "$.$defs"),
        (with_a({"$ref": "#"}), "$.a.type"),
        (TEXT, "$: not an object"),
        ({"type": "object"}, "$: no properties"),
        ([], "$: not an object"),
        (with_a({}), "$.a.type"),
        (with_a(True), "$.a: not a schema object"),
        (with_a({"description": "x"}), "$.a.type"),
        (with_a({"type": ["string", "null"]}), "$.a.type"),
        (with_a({"type": "text"}), "$.a.type"),
        (with_a({"type": "string", "pattern": "(a+)+b"}), "$.a.pattern"),
        (with_a({"type": "string", "format": "email"}), "$.a.format"),
        (with_a({"not": TEXT, "type": "string"}), "$.a.not"),
        (with_a({"type": "string", "enum": []}), "$.a.enum"),
        (with_a({"type": "string", "enum": [{"b": 1}]}), "$.a: a value"),
        (with_a({"type": "string", "maxLength": MAX_REPEAT + 1}), "$.a.maxLength"),
        (with_a({"type": "string", "minLength": 5, "maxLength": 2}), "$.a.minLength"),
        (with_a({"type": "array"}), "$.a.items"),
        (with_a({"type": "array", "items": TEXT, "maxItems": 10**9}), "$.a.maxItems"),
        (with_a({"type": "object"}), "$.a: an object that names"),
        (with_a({"type": "object", "properties": {}}), "$.a: an object that names"),
        (with_a({"anyOf": []}), "$.a.anyOf"),
        (with_a(TEXT) | {"required": ["b"]}, "$.required"),
        (with_a(TEXT) | {"allOf": [TEXT]}, "$.allOf"),
        (nested(MAX_DEPTH + 1), "deeper than"),
        ({"type": "object", "properties": {f"p{n}": TEXT for n in range(30)}}, "states"),
        ({"type": "object", "properties": {f"p{n}": TEXT for n in range(300)}}, "parts"),
        (with_a({"type": "string", "enum": [str(n) for n in range(300)]}), "parts"),
        (with_a({"type": "string", "description": "x" * MAX_BYTES}), "bytes"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_known_to_be_harmless_is_kept_out_and_named(schema, place):
    assert place in str(objected(schema))


def test_lists_in_lists_multiply_and_are_bounded():
    schema: object = TEXT
    for _ in range(4):
        schema = {"type": "array", "items": schema, "maxItems": MAX_REPEAT}

    assert "states" in str(objected(with_a(schema)))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 3000])
def test_what_is_no_json_is_kept_out(text):
    assert objection(text) is not None
