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

MAX_BYTES = 16 * 1024
"""Chosen: ten times an ordinary tool; the table grows with the text of the expression."""
MAX_DEPTH = 6
MAX_NODES = 200
"""Subschemas and choices. Chosen: an object of 60 properties with enumerations."""
MAX_REPEAT = 64
"""Largest bound on a length: the expression repeats its part as often."""

FORMATS = frozenset({"date-time", "date", "time", "uuid"})
_SILENT = frozenset(
    "title description default examples example deprecated readOnly writeOnly strict $schema $id"
    " $comment additionalProperties minimum maximum exclusiveMinimum exclusiveMaximum".split()
)
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
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")


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
    """One schema, looked at from the root."""

    def __init__(self) -> None:
        self._nodes = 0

    def check(self, schema: Json, path: str, depth: int) -> None:
        """Raise Unfit for the first thing that is not known to be harmless."""
        self._count(1, path)
        if depth > MAX_DEPTH:
            raise Unfit(f"{path}: deeper than {MAX_DEPTH}")
        if not isinstance(schema, dict):
            raise Unfit(f"{path}: not a schema object")
        if alternatives := schema.get("anyOf"):
            self._known(schema, {"anyOf"}, path)
            return self._each(alternatives, f"{path}.anyOf", depth)
        kind = schema.get("type")
        if not isinstance(kind, str) or kind not in _BY_TYPE:
            raise Unfit(f"{path}.type: {kind!r} is not one type")
        self._known(schema, _BY_TYPE[kind], path)
        self._literals(schema, path)
        self._bounds(schema, path)
        return self._inside(kind, schema, path, depth)

    def _count(self, nodes: int, path: str) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise Unfit(f"{path}: more than {MAX_NODES} parts")

    def _known(self, schema: dict[str, Json], known: Iterable[str], path: str) -> None:
        for keyword in schema.keys() - _SILENT - {"type", *known}:
            raise Unfit(f"{path}.{keyword}: not a keyword that TGI compiles safely")

    def _each(self, schemas: Json, path: str, depth: int) -> None:
        if not isinstance(schemas, list) or not schemas:
            raise Unfit(f"{path}: not a list of schemas")
        for index, schema in enumerate(schemas):
            self.check(schema, f"{path}[{index}]", depth + 1)

    def _literals(self, schema: dict[str, Json], path: str) -> None:
        choices = schema.get("enum", [])
        if not isinstance(choices, list) or ("enum" in schema and not choices):
            raise Unfit(f"{path}.enum: not a list of values")
        self._count(len(choices), path)
        for value in (*choices, schema.get("const")):
            if isinstance(value, dict | list):
                raise Unfit(f"{path}: a value that is no scalar")

    def _bounds(self, schema: dict[str, Json], path: str) -> None:
        for keyword in _REPEATS:
            bound = schema.get(keyword, 0)
            if (
                not isinstance(bound, int)
                or isinstance(bound, bool)
                or not 0 <= bound <= MAX_REPEAT
            ):
                raise Unfit(f"{path}.{keyword}: not from 0 to {MAX_REPEAT}")
        if "format" in schema and schema["format"] not in FORMATS:
            raise Unfit(f"{path}.format: {schema['format']!r} is not compiled")

    def _inside(self, kind: str, schema: dict[str, Json], path: str, depth: int) -> None:
        if kind == "array":
            return self.check(schema.get("items"), f"{path}.items", depth + 1)
        if kind != "object":
            return None
        properties = schema.get("properties")
        if not isinstance(properties, dict) or (depth and not properties):
            raise Unfit(f"{path}: an object that names no properties")
        for name, value in properties.items():
            self.check(value, f"{path}.{name}", depth + 1)
        return self._required(schema.get("required", []), properties, path)

    def _required(self, names: Json, properties: dict[str, Json], path: str) -> None:
        if not isinstance(names, list) or any(name not in properties for name in names):
            raise Unfit(f"{path}.required: names what has no schema")
