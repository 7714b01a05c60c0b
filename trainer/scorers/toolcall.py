"""Judging a tool call against the row's right answer.

    call_exact   tool and arguments equal the right ones, values as they are written (headline)
    call_match   the same with BFCL's leniency: strings without case, spaces and , . / - _ * ^, any
                 of the values that the row accepts, an optional argument left out where it may be
    tool_name    the right tool was called
    json_valid   the answer is a call that parses and satisfies its tool's schema, or plain text

Where nothing must be called, an answer is right when it calls nothing; a call is a *false call*.
Source of the leniency: BFCL, `ast_checker`, re-implemented from its description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import msgspec

from proxy.protocol.formats.base import Parsed
from proxy.protocol.openai import Function, FunctionCall
from trainer.rows import Row

_LOOSE = re.compile(r"[ ,./\\\-_*^]")


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One answer judged."""

    must_call: bool
    called: bool
    json_valid: bool
    tool_name: bool
    call_match: bool
    call_exact: bool


def score(row: Row, answer: Parsed) -> Score:
    """What an answer is worth for a row with at most one right call."""
    called = answer.calls[0].function if len(answer.calls) == 1 and not answer.broken else None
    if not row.calls:
        right = not answer.calls and not answer.broken
        return Score(
            must_call=False,
            called=not right,
            json_valid=not answer.broken
            and all(_is_valid(row.functions, c.function) for c in answer.calls),
            tool_name=right,
            call_match=right,
            call_exact=right,
        )
    (right_call,) = row.calls
    named = called is not None and called.name == right_call.name
    return Score(
        must_call=True,
        called=bool(answer.calls) or bool(answer.broken),
        json_valid=not answer.broken
        and all(_is_valid(row.functions, c.function) for c in answer.calls),
        tool_name=named,
        call_match=named and called is not None and _matches(called, row, loose=True),
        call_exact=named and called is not None and _matches(called, row, loose=False),
    )


def _is_valid(functions: list[Function], call: FunctionCall) -> bool:
    schema = next((f.schema for f in functions if f.name == call.name), None)
    if schema is None:
        return False
    try:
        return jsonschema_rs.is_valid(
            msgspec.json.decode(schema), msgspec.json.decode(call.arguments)
        )
    except msgspec.DecodeError:
        return False


def _matches(call: FunctionCall, row: Row, loose: bool) -> bool:
    try:
        given = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        return False
    if not isinstance(given, dict):
        return False
    if not loose or not row.accepted:
        return bool(_same(given, msgspec.json.decode(row.calls[0].arguments), loose))
    accepted = {name: msgspec.json.decode(values) for name, values in row.accepted[0].items()}
    return _accepted(given, accepted)


def _accepted(given: Mapping[str, Any], accepted: Mapping[str, list[Any]]) -> bool:
    if not given.keys() <= accepted.keys():
        return False
    return all(
        any(_is_one(given[name], value) for value in values) if name in given else "" in values
        for name, values in accepted.items()
    )


def _is_one(given: Any, value: Any) -> bool:
    """Whether a value is the accepted one; nested objects hold lists of accepted values again."""
    if isinstance(given, dict) and isinstance(value, dict):
        lists = {k: v if isinstance(v, list) else [v] for k, v in value.items()}
        return _accepted(given, lists)
    if isinstance(given, list) and isinstance(value, list):
        return len(given) == len(value) and all(map(_is_one, given, value))
    return _same(given, value, loose=True)


def _same(given: Any, right: Any, loose: bool) -> bool:
    """Equal as JSON: 1 and 1.0 are, true and 1 are not."""
    if isinstance(given, bool) or isinstance(right, bool):
        return given is right
    if isinstance(given, str) and isinstance(right, str) and loose:
        return _plain(given) == _plain(right)
    if isinstance(given, dict) and isinstance(right, dict):
        return given.keys() == right.keys() and all(_same(given[k], right[k], loose) for k in given)
    if isinstance(given, list) and isinstance(right, list):
        return len(given) == len(right) and all(
            _same(a, b, loose) for a, b in zip(given, right, strict=True)
        )
    return bool(given == right)


def _plain(text: str) -> str:
    return _LOOSE.sub("", text).lower().replace("'", '"')
