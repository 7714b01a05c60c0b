"""Whether the schemas of tools can be used at all: rows with others are no rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from proxy.protocol.openai import ChatRequest, Function, MalformedRequest, Message, Tool
from proxy.protocol.toolcheck import check_tools
from trainer.formats.base import BadRow

Json: TypeAlias = Any


def check_schemas(functions: Sequence[Function]) -> None:
    """Raise BadRow for a schema that is none, that refers to what is not there, or only to itself,
    and for a tool that is offered twice."""
    request = ChatRequest(
        model="", messages=[Message(role="user")], tools=[Tool("function", f) for f in functions]
    )
    try:
        check_tools(request)
    except MalformedRequest as error:
        raise BadRow("schema_unusable", str(error)) from None
    for function in functions:
        if b"$ref" in bytes(function.parameters):
            _check_loops(function)


def _check_loops(function: Function) -> None:
    """A schema may contain itself, as a tree does, but not be nothing else than itself."""
    schema = msgspec.json.decode(function.schema)
    for start in _references(schema):
        seen: set[str] = set()
        reference: Json = start
        while isinstance(reference, str):
            if reference in seen:
                raise BadRow("schema_loops", f"{function.name}: a $ref that leads to itself")
            seen.add(reference)
            target = _at(schema, reference)
            reference = target.get("$ref") if isinstance(target, dict) else None


def _references(value: Json) -> list[str]:
    """All `$ref` in a value, however deep: without recursion, which the value could exhaust."""
    found, waiting = [], [value]
    while waiting:
        match waiting.pop():
            case dict() as inner:
                found += [inner["$ref"]] if isinstance(inner.get("$ref"), str) else []
                waiting += inner.values()
            case list() as inner:
                waiting += inner
            case _:
                pass
    return found


def _at(schema: Json, reference: str) -> Json:
    """What a local JSON pointer leads to; None where there is nothing."""
    target = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        if not isinstance(target, dict):
            return None
        target = target.get(step.replace("~1", "/").replace("~0", "~"))
    return target
