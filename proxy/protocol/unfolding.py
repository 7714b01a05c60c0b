"""How much work a JSON Schema makes, were all of its references written out.

A reference is short, and what it names may hold two more: forty lines say to look at a value a
million million times, and a validator does. What counts as unevaluated takes it another look at all
that looks at the same value, and so, nested, as many more at each level. So the work is counted
before it is done: the schemas that may look at one place of a value, as deep as the value is, times
the places that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MOST = 20_000_000
"""Looks at a value. Chosen: about half a second; a union of five kinds of nodes, each of which
holds the union twice, is below it for answers six levels deep."""
_BEYOND = MOST + 1
_FEW = 16
"""References in a document of several resources, where we do not follow them. Chosen: two for each
of eight are 256 looks."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_HERE = frozenset({
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies",
})  # fmt: skip
"""Keywords whose schemas look at the same value."""
_BELOW = frozenset({
    "properties", "patternProperties", "additionalProperties", "unevaluatedProperties",
    "propertyNames", "items", "prefixItems", "additionalItems", "unevaluatedItems", "contains",
})  # fmt: skip
"""Keywords whose schemas look at what is in it."""
_UNEVALUATED = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_AGAIN = 3
"""Looks that a schema with one of these takes for each of those in the same place. Measured: 2.7,
with jsonschema-rs 0.60."""
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})


def is_folded(schema: bytes) -> bool:
    """Whether there is anything to be unfolded."""
    return any(sign in schema for sign in (b"Ref", b"$ref", b"unevaluated", b"\\u"))


def looks(document: dict[str, Json], levels: int) -> int:
    """Looks at each place of a value so many levels deep, at most; up to a little more than MOST.

    Raises RecursionError for a chain of references that is longer than anybody writes.
    """
    unfolding = _Unfolding(document)
    # From shallow to deep: what refers to itself then finds what is below it counted, and how deep
    # an answer may be does not depend on how deep in calls it is looked at.
    for level in range(levels):
        unfolding.looks(document, level)
    return unfolding.looks(document, levels)


class _Unfolding:
    def __init__(self, document: dict[str, Json]) -> None:
        self._document = document
        self._known: dict[tuple[int, int], int] = {}
        self._anchors: dict[str, Json] = {}
        self._references = 0
        has_parts = False
        for schema in objects(document):
            has_parts |= "$id" in schema and schema is not document
            self._references += sum(name in schema for name in _REFERENCES)
            for name in ("$anchor", "$dynamicAnchor"):
                self._anchors.setdefault(str(schema.get(name)), schema)
        self._is_beyond = has_parts and self._references > _FEW

    def looks(self, schema: Json, levels: int) -> int:
        """Looks at one place that a schema makes, itself or by what it refers to."""
        if self._is_beyond:
            return _BEYOND
        if not isinstance(schema, dict):
            return 1
        place = (id(schema), levels)
        if place not in self._known:
            # One that leads back to itself at the same place is looked at once.
            self._known[place] = 0
            self._known[place] = min(1 + sum(self._parts(schema, levels)), _BEYOND)
        return self._known[place]

    def _parts(self, schema: dict[str, Json], levels: int) -> Iterator[int]:
        again = _AGAIN if _UNEVALUATED & schema.keys() else 1
        for name, value in schema.items():
            if name in _REFERENCES and isinstance(value, str):
                yield again * self.looks(self._target(value), levels)
            elif name in _HERE:
                yield again * sum(self.looks(part, levels) for part in _listed(name, value))
            elif name in _BELOW and levels:
                each = [self.looks(part, levels - 1) for part in _listed(name, value)]
                # A place has one name, which one of the properties takes.
                yield max(each, default=0) if name == "properties" else sum(each)

    def _target(self, reference: str) -> Json:
        """What a reference leads to; None for what is not in here, which does not compile."""
        fragment = unquote(reference.partition("#")[2])
        if not fragment.startswith("/"):
            return self._anchors.get(fragment) if fragment else self._document
        found: Json = self._document
        for step in fragment[1:].split("/"):
            found = _inside(found, step.replace("~1", "/").replace("~0", "~"))
        return found


def _listed(name: str, value: Json) -> list[Json]:
    if isinstance(value, list):
        return value
    if name in _NAMED and isinstance(value, dict):
        return list(value.values())
    return [value]


def _inside(value: Json, step: str) -> Json:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    return None


def objects(value: Json) -> Iterator[dict[str, Json]]:
    """All objects in a document, itself included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


class Size(NamedTuple):
    """How large a value is."""

    places: int
    levels: int
    """0 for a number, 1 for a list of numbers."""


def size(value: Json) -> Size:
    """How many places a value has, and how deep it is."""
    places, deepest, waiting = 0, 0, [(value, 0)]
    while waiting:
        one, level = waiting.pop()
        places, deepest = places + 1, max(deepest, level)
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting += [(part, level + 1) for part in inner]
    return Size(places, deepest)
