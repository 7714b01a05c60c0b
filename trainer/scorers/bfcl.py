"""BFCL's rules for when calls are the right ones, re-implemented from their description.

    tool        the same name, a dot read as an underscore
    arguments   every required one, none that is unknown, each one's type, then its value
    values      one of those that are right; "" among them: may be left out
    texts       compared without case, spaces and , . / - _ * ^, and with one kind of quotation mark
    lists       in order; their items' type is checked one level down
    several     as many calls as are right, in any order

Two leniencies are kept although they look odd, since figures are compared with the leaderboard's:
a value of another type is right where the first right value has that type (BFCL: it is the name of
a variable), and inside lists and objects 1, 1.0 and true are equal. Whether a call satisfies its
tool's own schema is another question: `scorers.toolcall`, `json_valid`.
Source: Berkeley Function Calling Leaderboard v4, `ast_checker`; the tests compare all verdicts with
those of the installed package, over its own data and their mutations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from proxy.protocol.openai import Function, FunctionCall

Json: TypeAlias = Any
"""A decoded JSON value."""
Accepted: TypeAlias = Mapping[str, Sequence[Json]]
"""Argument → the values that are right."""
Fault: TypeAlias = Literal[
    "wrong_count",
    "wrong_tool",
    "not_an_object",
    "missing_argument",
    "unexpected_argument",
    "wrong_type",
    "wrong_value",
]

_KINDS: dict[str, type] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}
_IGNORED = re.compile(r"[ ,./\-_*^]")
_OMITTED = ""
"""Stands among the right values of an argument that may be left out."""


class Right(NamedTuple):
    """One call that is right."""

    tool: str
    accepted: Accepted


class _Typed(NamedTuple):
    """What a schema says of one argument."""

    kind: type
    items: type | None
    """Type of a list's items; None for what is no list, or where nothing is said of them."""


def fault(
    functions: Sequence[Function], calls: Sequence[FunctionCall], right: Sequence[Right]
) -> Fault | None:
    """What is wrong with the calls as a whole, by the first that fits none of them; None: right."""
    if len(calls) != len(right):
        return "wrong_count"
    left = list(calls)
    for expected in right:
        schema = _schema(functions, expected.tool)
        faults = [_call_fault(schema, call, expected) for call in left]
        if None not in faults:
            return max((one for one in faults if one is not None), key=_closeness)
        # The first that fits is taken, as BFCL does, and never given back for a better pairing.
        del left[faults.index(None)]
    return None


def may_be_left_out(values: Sequence[Json]) -> bool:
    """Whether an argument with these right values need not be stated."""
    return any(type(value) is str and value == _OMITTED for value in values)


def plain(text: str) -> str:
    """The text as BFCL compares it."""
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _closeness(fault: Fault) -> int:
    """Of several faults the one that says most: that of the call which came furthest."""
    order: tuple[Fault, ...] = (
        "wrong_tool",
        "not_an_object",
        "missing_argument",
        "unexpected_argument",
        "wrong_type",
        "wrong_value",
    )
    return order.index(fault)


def _schema(functions: Sequence[Function], tool: str) -> Json:
    found = next((f.schema for f in functions if _name(f.name) == _name(tool)), b"{}")
    return msgspec.json.decode(found)


def _name(name: str) -> str:
    return name.replace(".", "_")


# ------------------------------------------------------------------ one call


def _call_fault(schema: Json, call: FunctionCall, right: Right) -> Fault | None:
    if _name(call.name) != _name(right.tool):
        return "wrong_tool"
    try:
        given = msgspec.json.decode(call.arguments)
    except (ValueError, RecursionError):
        return "not_an_object"
    return arguments_fault(schema, given, right.accepted)


def arguments_fault(schema: Json, given: Json, accepted: Accepted) -> Fault | None:
    """What is wrong with decoded arguments; None when they are right."""
    if not isinstance(given, dict):
        return "not_an_object"
    if any(name not in given for name in schema.get("required") or ()):
        return "missing_argument"
    properties = schema.get("properties") or {}
    for name, value in given.items():
        # A schema that names no arguments leaves them open; in BFCL's data none does.
        if name not in accepted or (properties and name not in properties):
            return "unexpected_argument"
        found = _value_fault(_typed(properties.get(name)), value, accepted[name])
        if found is not None:
            return found
    left_out = [values for name, values in accepted.items() if name not in given]
    return None if all(map(may_be_left_out, left_out)) else "missing_argument"


def _typed(schema: Json) -> _Typed:
    kind = _kind(schema)
    items = schema.get("items") if isinstance(schema, dict) else None
    return _Typed(kind, _kind(items) if kind is list and items is not None else None)


def _kind(schema: Json) -> type:
    """Where a schema names no type, BFCL expects a text."""
    named = schema.get("type") if isinstance(schema, dict) else None
    return _KINDS.get(named, str) if isinstance(named, str) else str


# ------------------------------------------------------------------ one value


def _value_fault(typed: _Typed, value: Json, right: Sequence[Json]) -> Fault | None:
    if typed.kind is float and type(value) is int:
        value = float(value)
    if not _is_typed(typed, value, right):
        return "wrong_type"
    return None if _is_right(typed, value, right) else "wrong_value"


def _is_typed(typed: _Typed, value: Json, right: Sequence[Json]) -> bool:
    if type(value) is not typed.kind:
        return type(value) is _first_kind(right)
    items = typed.items
    return items is None or any(_are_items(items, value, one) for one in right)


def _are_items(kind: type, values: Json, right: Json) -> bool:
    """Whether a list's items have a type that the right list allows; any, where it is no list."""
    if not isinstance(right, list):
        return True
    expected = (kind, _first_kind(right))
    return all(type(value) in expected for value in values)


def _first_kind(right: Sequence[Json]) -> type | None:
    return next((type(one) for one in right if one != _OMITTED), None)


def _is_right(typed: _Typed, value: Json, right: Sequence[Json]) -> bool:
    if _first_kind(right) not in (None, typed.kind):
        return value in right
    match value:
        case dict():
            return any(_is_object(value, one) for one in right)
        case list() if typed.items is dict:
            return any(_are_objects(value, one) for one in right)
        case list():
            return _flat(value) in [_flat(one) for one in right]
        case str():
            return plain(value) in [plain(one) for one in right if isinstance(one, str)]
        case _:
            return value in right


def _is_object(given: Json, right: Json) -> bool:
    """Whether each value is one of the right ones for its key; only optional keys are left out."""
    if not isinstance(given, dict) or not isinstance(right, dict):
        return False
    if any(key not in right or _flat_one(v) not in _flat(right[key]) for key, v in given.items()):
        return False
    return all(may_be_left_out(values) for key, values in right.items() if key not in given)


def _are_objects(given: Sequence[Json], right: Json) -> bool:
    if not isinstance(right, list):
        return right == _OMITTED and not given
    return len(given) == len(right) and all(map(_is_object, given, right))


def _flat(values: Json) -> list[Json]:
    """A list with its texts as they are compared; "" is the empty list."""
    return [_flat_one(value) for value in values] if isinstance(values, list | str) else [values]


def _flat_one(value: Json) -> Json:
    return plain(value) if isinstance(value, str) else value
