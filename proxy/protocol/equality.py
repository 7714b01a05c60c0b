"""When two JSON values are the same: 1 and 1.0 are, true and 1 are not, keys have no order.

Strings are compared as they are written, or with the leniency of the Berkeley Function Calling
Leaderboard: without case, spaces and , . / - _ * ^, one kind of quotes. Source of the leniency:
BFCL, `ast_checker`, re-implemented from its description.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec

Strings: TypeAlias = Literal["exact", "bfcl"]
"""How strings are compared."""
Path: TypeAlias = tuple[str | int, ...]

_LENIENT = re.compile(r"[ ,./\-_*^]")


def normal(value: Any, strings: Strings = "exact") -> Hashable:
    """A form that equal JSON values share, and no others."""
    match value:
        case bool() | None:
            return ("constant", value)
        case int() | float():
            return ("number", value)
        case str():
            return ("string", _lenient(value) if strings == "bfcl" else value)
        case list():
            return ("array", tuple(normal(one, strings) for one in value))
        case dict():
            return ("object", frozenset((k, normal(v, strings)) for k, v in value.items()))
    raise TypeError(f"no JSON value: {type(value).__name__}")


def same(given: Any, reference: Any, strings: Strings = "exact") -> bool:
    """Whether two decoded JSON values are the same."""
    return normal(given, strings) == normal(reference, strings)


def leaves(value: Any, strings: Strings = "exact") -> dict[Path, Hashable]:
    """Normal forms of the values that have no parts, by path; an empty array or object is one.

    An empty object at the top, a call without arguments, has none.
    """
    return {} if value == {} else dict(_leaves(value, (), strings))


def _leaves(value: Any, path: Path, strings: Strings) -> Iterator[tuple[Path, Hashable]]:
    if not isinstance(value, dict | list) or not value:
        yield path, normal(value, strings)
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield from _leaves(part, (*path, key), strings)


def decoded(arguments: str) -> Any:
    """The arguments of a call; a text that is no JSON stands for itself."""
    try:
        return msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return arguments


def _lenient(text: str) -> str:
    return _LENIENT.sub("", text).lower().replace("'", '"')
