"""The filter that checks a row's calls against the row's own tools, as the proxy would.

A row offers only tools that something could satisfy: a model that is shown another kind learns
that schemas mean nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from proxy.protocol.openai import ChatRequest, Function, MalformedRequest, Tool, ToolCall
from proxy.protocol.toolcheck import check, check_tools
from trainer.curate.filter import Drop
from trainer.recipe import Recipe
from trainer.recipe.curation import SchemaSettings
from trainer.rows import Row

_BOUNDS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_MAX_DEPTH = 32


class Schema:
    """Every call is allowed by its tool's schema, and every tool can be called."""

    version: ClassVar[int] = 1

    def __init__(self, settings: SchemaSettings, recipe: Recipe) -> None:
        self._most_calls = settings.most_calls

    def __call__(self, row: Row) -> Row | Drop:
        if len(row.calls) > self._most_calls:
            return Drop("several_calls", f"{len(row.calls)} calls")
        fault = _broken_tool(row)
        if fault is not None:
            return fault
        calls = [ToolCall(id=str(n), function=call) for n, call in enumerate(row.calls)]
        failure = check(calls, _request(row))
        return row if failure is None else Drop(failure.reason, failure.message)


def _request(row: Row) -> ChatRequest:
    tools = [Tool(type="function", function=function) for function in row.functions]
    return ChatRequest(model="", messages=row.messages, tools=tools)


def _broken_tool(row: Row) -> Drop | None:
    names = [function.name for function in row.functions]
    if len(set(names)) != len(names):
        return Drop("tool_offered_twice", max(names, key=names.count))
    try:
        check_tools(_request(row))
    except MalformedRequest as error:
        return Drop("schema_broken", str(error))
    impossible = next((f.name for f in row.functions if not _is_satisfiable(f)), None)
    return None if impossible is None else Drop("schema_unsatisfiable", impossible)


def _is_satisfiable(function: Function) -> bool:
    """No, for the usual slips: empty choices, crossed bounds, a required property ruled out."""
    return not _is_impossible(msgspec.json.decode(function.schema), 0)


def _is_impossible(schema: Any, depth: int) -> bool:
    """Whether no value at all satisfies the schema, as far as keywords beside each other tell."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return schema is False
    return (
        schema.get("enum") == []
        or any(_is_crossed(schema.get(low), schema.get(high)) for low, high in _BOUNDS)
        or _is_required_impossible(schema, depth)
        or any(_is_impossible(part, depth + 1) for part in _listed(schema, "allOf"))
        or any(_all_impossible(schema, key, depth) for key in ("anyOf", "oneOf"))
    )


def _is_crossed(low: Any, high: Any) -> bool:
    return isinstance(low, int | float) and isinstance(high, int | float) and low > high


def _is_required_impossible(schema: dict[str, Any], depth: int) -> bool:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return any(
        (is_closed and name not in properties) or _is_impossible(properties.get(name), depth + 1)
        for name in _listed(schema, "required")
        if isinstance(name, str)
    )


def _all_impossible(schema: dict[str, Any], key: str, depth: int) -> bool:
    parts = _listed(schema, key)
    return bool(parts) and all(_is_impossible(part, depth + 1) for part in parts)


def _listed(schema: dict[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []
