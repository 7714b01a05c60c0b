"""JSON values compared: equal, equal but for BFCL's leniency, and the share of leaves that agree.

A *leaf* is a text, number, truth value, null or empty container; its path is the keys and positions
that lead to it. Unlike Python's, the comparison tells true from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from trainer.scorers.bfcl import plain

Json: TypeAlias = Any
Path: TypeAlias = tuple[str | int, ...]


def same(given: Json, right: Json, *, loose: bool) -> bool:
    """Equal as JSON: 1 and 1.0 are, true and 1 are not. `loose`: texts as BFCL compares them."""
    if isinstance(given, bool) or isinstance(right, bool):
        return given is right
    if isinstance(given, str) and isinstance(right, str) and loose:
        return plain(given) == plain(right)
    if isinstance(given, dict) and isinstance(right, dict):
        return given.keys() == right.keys() and all(
            same(given[key], right[key], loose=loose) for key in given
        )
    if isinstance(given, list) and isinstance(right, list):
        return len(given) == len(right) and all(
            same(a, b, loose=loose) for a, b in zip(given, right, strict=True)
        )
    return bool(given == right)


def shared(given: Json, right: Json) -> float:
    """Matched leaves ÷ union of both sides' leaf paths, 0 to 1; 1.0 where both have none."""
    mine, theirs = dict(_leaves(given)), dict(_leaves(right))
    union = mine.keys() | theirs.keys()
    hits = sum(same(mine[path], theirs[path], loose=True) for path in mine.keys() & theirs.keys())
    return hits / len(union) if union else 1.0


def _leaves(value: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    match value:
        case dict() if value:
            for key, inner in value.items():
                yield from _leaves(inner, (*path, key))
        case list() if value:
            for position, inner in enumerate(value):
                yield from _leaves(inner, (*path, position))
        case {} if not path:
            return
        case _:
            yield path, value
