"""JSON Schemas that came with a request: compiled within bounds, and what a value breaks of them.

Draft 2020-12, or the draft that `$schema` names. References are followed inside the schema only;
nothing is ever fetched. No message quotes the value, so that it may be logged and told to the model
that erred.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import jsonschema_rs
import msgspec

from proxy.protocol import unfolding
from proxy.protocol.openai import Function

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_NO_PARAMETERS = b'{"type":"object","additionalProperties":false}'
_CACHED_BYTES = 64 * 1024
"""Larger schemas are compiled anew each time, which bounds the cache's memory."""
_LEVELS = 2
"""Levels of a value for which a schema's references must not multiply, or it is refused at once.
Chosen: deeper ones may be recursive and good; there the answer's own depth decides."""
PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=1024 * 1024)
"""A pattern, or what it is tried on, comes from a client: its time and memory have limits. Chosen:
some milliseconds."""
MOST_PATTERNS = 200
"""Patterns of a request. Chosen: as dear as can be, they take a second to compile, and 200 MiB."""
_CACHED_PATTERNS = 2
"""Schemas with more of them are compiled anew each time, too: simple ones take microseconds."""
_Change: TypeAlias = Callable[[dict[str, Json]], dict[str, Json]]

_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value maps names to schemas."""
_NESTED = frozenset({
    "additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "else", "if", "items",
    "not", "oneOf", "prefixItems", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties",
})  # fmt: skip
"""Keywords whose value is a schema or a list of schemas."""
_COMBINED = frozenset({"allOf", "oneOf", "anyOf", "if", "$ref"})


class BrokenSchema(ValueError):
    """The schema cannot be compiled; the message is for the client who sent it."""


def of(function: Function) -> bytes:
    """A function's schema as it came, or that of no arguments."""
    schema = bytes(function.parameters)
    return _NO_PARAMETERS if schema in (b"", b"null") else schema


def validator(function: Function) -> jsonschema_rs.Validator:
    """The compiled schema of a function that `check_tools` has passed."""
    return compiled(of(function), bool(function.strict))


def compiled(schema: bytes, strict: bool) -> jsonschema_rs.Validator:
    """The compiled schema, `strict` as OpenAI means it; raises BrokenSchema."""
    is_small = len(schema) <= _CACHED_BYTES and patterns(schema) <= _CACHED_PATTERNS
    return (_cached if is_small else _anew)(schema, strict)


def patterns(schema: bytes) -> int:
    """How many patterns there are in a schema; raises BrokenSchema for what is none."""
    if b"pattern" not in schema and b"\\u" not in schema:
        return 0
    return sum(map(_patterns, unfolding.objects(loaded(schema))))


def _patterns(schema: dict[str, Json]) -> int:
    named = schema.get("patternProperties")
    return ("pattern" in schema) + (len(named) if isinstance(named, dict) else 0)


def _anew(schema: bytes, strict: bool) -> jsonschema_rs.Validator:
    plain = loaded(schema)
    if patterns(schema) > MOST_PATTERNS:
        raise BrokenSchema(f"more than {MOST_PATTERNS} patterns")
    if unfolding.is_folded(schema) and _looks(schema, _LEVELS) > unfolding.MOST:
        raise BrokenSchema("the JSON Schema's parts multiply beyond all measure")
    if strict:
        plain = changed(plain, _closed)
    try:
        return _draft(plain)(plain, validate_formats=True, offline=True, pattern_options=PATTERNS)
    except jsonschema_rs.ValidationError as error:
        raise BrokenSchema(_why_broken(error, schema)) from None
    except ValueError as error:
        raise BrokenSchema(f"the JSON Schema cannot be used: {error}") from None


_cached = functools.lru_cache(maxsize=512)(_anew)


def _why_broken(error: jsonschema_rs.ValidationError, schema: bytes) -> str:
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Referencing):
        return "the JSON Schema has a $ref that leads nowhere inside of it; others are not followed"
    return f"not a valid JSON Schema: {error.message[:200]}, in {_place(error, schema)}"


def _draft(schema: dict[str, Json]) -> type[jsonschema_rs.Validator]:
    named = schema.get("$schema")
    if not isinstance(named, str):
        return jsonschema_rs.Draft202012Validator
    # Whatever it does not know, it takes for draft 2020-12.
    return jsonschema_rs.validator_cls_for({"$schema": named})


def loaded(schema: bytes) -> dict[str, Json]:
    """The schema as plain values; raises BrokenSchema."""
    try:
        plain: dict[str, Json] = msgspec.json.decode(schema, type=dict)
    except ValueError:
        raise BrokenSchema("a schema must be a JSON object") from None
    except RecursionError:
        raise BrokenSchema("the schema is nested too deeply") from None
    return plain


# ---------------------------------------------------------------- values


def problem(value: Json, schema: bytes, strict: bool) -> str | None:
    """Where and how the value breaks the schema, in words that do not quote the value."""
    validator = compiled(schema, strict)
    if unfolding.is_folded(schema) and _is_too_much(value, schema):
        return "$ is nested too deeply for the schema's references to be followed"
    error = complaint(validator, value)
    return None if error is None else f"{_place(error, schema)} {_words(error.kind)}"


def complaint(
    validator: jsonschema_rs.Validator, value: Json
) -> jsonschema_rs.ValidationError | None:
    """The first thing that is wrong with a value; None if nothing is.

    Only the first: to find all takes minutes where each of a thousand values is none of a thousand
    options.
    """
    if validator.is_valid(value):
        return None
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return error
    return None


def _is_too_much(value: Json, schema: bytes) -> bool:
    places, levels = unfolding.size(value)
    return places * _looks(schema, levels) > unfolding.MOST


@functools.lru_cache(maxsize=1024)
def _looks(schema: bytes, levels: int) -> int:
    try:
        return unfolding.looks(loaded(schema), levels)
    except RecursionError:
        return unfolding.MOST + 1


def _place(error: jsonschema_rs.ValidationError, schema: bytes) -> str:
    """The path of the offending value; keys that the model made up are shown as `*`."""
    return "$" + "".join(_step(step, schema) for step in error.instance_path)


def _step(step: str | int, schema: bytes) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if msgspec.json.encode(step) in schema else ".*"


def _words(kind: jsonschema_rs.ValidationErrorKind) -> str:
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return f"lacks the required property {name!r}"
        case jsonschema_rs.ValidationErrorKind.Type(types=types):
            return f"is not of type {' or '.join(types)}"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            return "has a property that is not allowed"
        case _:
            return f"breaks the schema's {kind.name!r}"


# ---------------------------------------------------------------- schemas within schemas


def changed(schema: dict[str, Json], change: _Change) -> dict[str, Json]:
    """The schema with `change` made to each schema in it; raises BrokenSchema."""
    try:
        return _mapped(schema, change)
    except RecursionError:
        raise BrokenSchema("the schema is nested too deeply") from None


def _mapped(schema: dict[str, Json], change: _Change) -> dict[str, Json]:
    """The schema with `change` made to each schema in it, the innermost first."""
    return change({key: _mapped_value(key, value, change) for key, value in schema.items()})


def _mapped_value(key: str, value: Json, change: _Change) -> Json:
    match value:
        case dict() if key in _NESTED:
            return _mapped(value, change)
        case dict() if key in _NAMED:
            return {name: _mapped_value("not", one, change) for name, one in value.items()}
        case list() if key in _NESTED:
            return [_mapped_value("not", one, change) for one in value]
        case _:
            return value


def _closed(schema: dict[str, Json]) -> dict[str, Json]:
    """The schema as `strict` means it: an object has the properties that are named, and no others.

    A schema that combines others is left as it is: closed parts would exclude one another.
    """
    if "properties" not in schema or "additionalProperties" in schema or _COMBINED & schema.keys():
        return schema
    return {**schema, "additionalProperties": False}
