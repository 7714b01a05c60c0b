"""The five figures of structured API generation, over the text of a completion.

The right completion is one JSON object with exactly `arguments`, `query` and `tool_name`.

    json_strict     the whole trimmed text is one JSON object
    json_lenient    the text holds a JSON object: the first whose braces balance
    tool_name       the right tool, to the letter; `tool_name_normal`: a dot read as an underscore
    arguments       matched leaves ÷ union of leaf paths; `arguments_all`: every leaf agrees
    query           token F1 of the echoed query and the user's words, without case and surplus
                    spaces; `query_exact`: the same words to the letter
    exact           all three keys equal the right ones, and there is no fourth

Under a constraint json_strict is 1 by construction, and where code fills in the query so is
`query`: figures say how the text was made.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from proxy.protocol.equality import leaves, same
from trainer.rows import Row

_SCANNED = 64
"""Braces tried as the beginning of an object: bounds the time that a hostile text costs."""


class Five(msgspec.Struct, frozen=True, kw_only=True):
    """One completion judged."""

    json_strict: bool
    json_lenient: bool
    tool_name: bool
    tool_name_normal: bool
    arguments: float
    arguments_all: bool
    query: float
    query_exact: bool
    exact: bool


def five(row: Row, text: str) -> Five:
    """The figures of a completion for a row with one right call."""
    (right,) = row.calls
    strict = _object(text.strip())
    lenient = strict if strict is not None else _first_object(text)
    found = lenient or {}
    arguments, expected = found.get("arguments"), msgspec.json.decode(right.arguments)
    name, query = found.get("tool_name"), found.get("query")
    query = query if isinstance(query, str) else ""
    is_object = isinstance(arguments, dict)
    agreeing = _shared(arguments, expected) if is_object else 0.0
    return Five(
        json_strict=strict is not None,
        json_lenient=lenient is not None,
        tool_name=name == right.name,
        tool_name_normal=isinstance(name, str)
        and name.replace(".", "_") == right.name.replace(".", "_"),
        arguments=agreeing,
        arguments_all=is_object and agreeing == 1.0,
        query=token_f1(query, row.question),
        query_exact=query == row.question,
        exact=name == right.name
        and is_object
        and same(arguments, expected)
        and query == row.question
        and found.keys() == {"arguments", "query", "tool_name"},
    )


def _shared(given: Any, right: Any) -> float:
    """Matched leaves ÷ union of both sides' leaf paths; 1.0 where both have none."""
    mine, theirs = leaves(given, "bfcl"), leaves(right, "bfcl")
    paths = mine.keys() | theirs.keys()
    hits = sum(path in mine and path in theirs and mine[path] == theirs[path] for path in paths)
    return hits / len(paths) if paths else 1.0


def token_f1(given: str, right: str) -> float:
    """Harmonic mean of the shares of words that both texts have; 1.0 where both are empty."""
    mine, theirs = Counter(given.casefold().split()), Counter(right.casefold().split())
    both = sum((mine & theirs).values())
    words = mine.total() + theirs.total()
    return 2 * both / words if words else 1.0


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text that says more."""
    decoder, begin = json.JSONDecoder(), -1
    for _ in range(_SCANNED):
        begin = text.find("{", begin + 1)
        if begin < 0:
            return None
        try:
            value, _ = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None
