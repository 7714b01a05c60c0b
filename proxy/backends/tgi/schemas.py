"""Which schemas may reach TGI's grammar compiler.

TGI turns a schema into a regular expression (outlines-core 0.1.14) in the process that answers, and
then into a table while every other request waits. A recursive schema is expected to kill the
router, a large one takes minutes, and many keywords are refused or garbled. So only schemas of
which all that is known to be harmless: a list of keywords, bounded in depth, size and repetition.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = "dict[str, Json]"

MAX_BYTES = 16 * 1024
"""Chosen: ten times an ordinary tool; the table grows with the text of the expression."""
MAX_DEPTH = 6
MAX_NODES = 200
"""Subschemas and choices. Chosen: an object of 60 properties with enumerations."""
MAX_REPEAT = 64
"""Largest bound on a length: the expression repeats its part as often."""
MAX_STATES = 5_000
"""Chosen: 15 optional strings. Each state is matched against the whole vocabulary."""

FORMATS = frozenset({"date-time", "date", "time", "uuid"})
_ANNOTATIONS = """title description default examples example deprecated readOnly writeOnly strict
$schema $id $comment additionalProperties minimum maximum exclusiveMinimum exclusiveMaximum"""
_SILENT = frozenset(_ANNOTATIONS.split())
"""Keywords that the compiler passes over; what they demand, verification finds."""
_BY_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"enum", "const", "format", "minLength", "maxLength"}),
    "integer": frozenset({"enum", "const"}),
    "number": frozenset({"enum", "const"}),
    "boolean": frozenset({"enum", "const"}),
    "null": frozenset({"const"}),
}
_SCALAR = 20
"""States of a number or of a string without bounds, rounded up."""


class Unfit(ValueError):
    """Why a schema may not be sent: the path and what stands there."""


@functools.lru_cache(maxsize=1024)
def objection(schema: bytes) -> str | None:
    """What speaks against sending a schema of an object; None when nothing does."""
    try:
        if len(schema) > MAX_BYTES:
            raise Unfit(f"$: {len(schema)} bytes, at most {MAX_BYTES}")
        document: Json = msgspec.json.decode(schema)
        if not isinstance(document, dict) or document.get("type", "object") != "object":
            raise Unfit("$: not an object")
        if not isinstance(document.get("properties"), dict):
            raise Unfit("$: no properties")
        _Walk().check(document | {"type": "object"}, "$", 0)
    except (Unfit, msgspec.DecodeError, RecursionError) as unfit:
        return str(unfit)
    return None


class _Walk:
    """One schema, looked at from the root.

    Methods return about how many states the compiled expression has: an object none of whose
    properties is required holds all of them once for each that may come last.
    """

    def __init__(self) -> None:
        self._nodes = 0

    def check(self, schema: Json, path: str, depth: int) -> int:
        """The states of a schema; raises Unfit for the first thing not known to be harmless."""
        self._count(1, path)
        if depth > MAX_DEPTH:
            raise Unfit(f"{path}: deeper than {MAX_DEPTH}")
        if not isinstance(schema, dict):
            raise Unfit(f"{path}: not a schema object")
        if "anyOf" in schema:
            self._known(schema, {"anyOf"}, path)
            return self._any_of(schema["anyOf"], f"{path}.anyOf", depth)
        kind = schema.get("type", "string" if "enum" in schema else None)
        if not isinstance(kind, str) or kind not in _BY_TYPE:
            raise Unfit(f"{path}.type: {kind!r} is not one type")
        self._known(schema, _BY_TYPE[kind], path)
        return self._bounded(self._states(kind, schema, path, depth), path)

    def _count(self, nodes: int, path: str) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise Unfit(f"{path}: more than {MAX_NODES} parts")

    def _bounded(self, states: int, path: str) -> int:
        if states > MAX_STATES:
            raise Unfit(f"{path}: compiles to more than {MAX_STATES} states")
        return states

    def _known(self, schema: Object, known: Iterable[str], path: str) -> None:
        for keyword in schema.keys() - _SILENT - {"type", *known}:
            raise Unfit(f"{path}.{keyword}: not a keyword that TGI compiles safely")

    def _any_of(self, schemas: Json, path: str, depth: int) -> int:
        if not isinstance(schemas, list) or not schemas:
            raise Unfit(f"{path}: not a list of schemas")
        each = (self.check(s, f"{path}[{i}]", depth + 1) for i, s in enumerate(schemas))
        return self._bounded(sum(each), path)

    def _states(self, kind: str, schema: Object, path: str, depth: int) -> int:
        match kind:
            case "object":
                return self._object(schema, path, depth)
            case "array":
                most = self._repeat(schema, path, "minItems", "maxItems")
                return most * self.check(schema.get("items"), f"{path}.items", depth + 1)
            case _:
                return self._scalar(schema, path)

    def _object(self, schema: Object, path: str, depth: int) -> int:
        properties, required = schema.get("properties"), schema.get("required", [])
        if not isinstance(properties, dict) or (depth and not properties):
            raise Unfit(f"{path}: an object that names no properties")
        if not isinstance(required, list) or any(name not in properties for name in required):
            raise Unfit(f"{path}.required: names what has no schema")
        each = [self.check(s, f"{path}.{n}", depth + 1) + len(n) for n, s in properties.items()]
        return sum(each) * (1 if required else max(len(each), 1))

    def _scalar(self, schema: Object, path: str) -> int:
        if "format" in schema and schema["format"] not in FORMATS:
            raise Unfit(f"{path}.format: {schema['format']!r} is not compiled")
        if "enum" not in schema and "const" not in schema:
            return _SCALAR + self._repeat(schema, path, "minLength", "maxLength")
        choices = schema.get("enum", [schema.get("const")])
        if not isinstance(choices, list) or not choices:
            raise Unfit(f"{path}.enum: not a list of values")
        if any(isinstance(value, dict | list) for value in choices):
            raise Unfit(f"{path}: a value that is no scalar")
        self._count(len(choices), path)
        return sum(len(str(value)) for value in choices)

    def _repeat(self, schema: Object, path: str, least: str, most: str) -> int:
        """The largest bound, at least 2: without one, a part stands there once and again."""
        for keyword in (least, most):
            bound = schema.get(keyword, 0)
            if type(bound) is not int or not 0 <= bound <= MAX_REPEAT:
                raise Unfit(f"{path}.{keyword}: not from 0 to {MAX_REPEAT}")
        low, high = (int(str(schema.get(keyword, 0))) for keyword in (least, most))
        if most in schema and low > high:
            raise Unfit(f"{path}.{least}: more than {most}")
        return max(2, low, high)
