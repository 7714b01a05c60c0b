"""Judging the calls of an answer against the row's right ones.

    call_exact   tools and arguments equal the right ones, values as they are written (headline)
    call_match   the same with leniency: strings without case, spaces and , . / - _ * ^, any of the
                 values that the row accepts, an optional argument left out where it may be
    bfcl         the leaderboard's own verdict (`scorers.bfcl`)
    tool_name    the right tools were called
    arguments    matched leaves ÷ union of leaf paths, the mean over the calls
                 in their best matching
    json_valid   every call parses and satisfies its tool's schema; plain text is valid too

Several calls are right in any order. Where nothing must be called, an answer is right when it calls
nothing; a call is a *false call*. No call where one is right is a *missed call*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jsonschema_rs
import msgspec

from proxy.protocol import agreement
from proxy.protocol.equality import same
from proxy.protocol.formats.base import Parsed
from proxy.protocol.openai import Function, FunctionCall
from trainer.rows import Row
from trainer.scorers import bfcl

Accepted: TypeAlias = Mapping[str, list[Any]]
"""Argument → decoded values that are right."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One answer judged."""

    must_call: bool
    called: bool
    json_valid: bool
    tool_name: bool
    call_match: bool
    call_exact: bool
    bfcl: bool = False
    arguments: float = 0.0
    """0 to 1."""
    fault: str = ""
    """What is wrong, in a word: `missed_call`, `false_call`, `broken`, or one of `bfcl.Fault`."""


WRONG = {
    "json_valid": False,
    "tool_name": False,
    "call_match": False,
    "call_exact": False,
}


def score(row: Row, answer: Parsed) -> Score:
    """What an answer is worth for a row."""
    given = [one.function for one in answer.calls]
    called = bool(given) or bool(answer.broken)
    valid = not answer.broken and all(is_valid(row.functions, one) for one in given)
    if not row.calls:
        return _of_none(called=called, valid=valid)
    fault = "broken" if answer.broken else bfcl.fault(row.functions, given, right_calls(row))
    return Score(
        must_call=True,
        called=called,
        json_valid=valid,
        tool_name=not answer.broken
        and sorted(one.name for one in given) == sorted(one.name for one in row.calls),
        call_match=not answer.broken and _paired(given, _acceptable(row)),
        call_exact=not answer.broken and _paired(given, _equal(row)),
        bfcl=fault is None,
        arguments=agreement.matched(given, row.calls, "bfcl"),
        fault=(fault or "") if called else "missed_call",
    )


def _of_none(*, called: bool, valid: bool) -> Score:
    return Score(
        must_call=False,
        called=called,
        json_valid=valid,
        tool_name=not called,
        call_match=not called,
        call_exact=not called,
        bfcl=not called,
        arguments=float(not called),
        fault="false_call" if called else "",
    )


def refused(row: Row) -> Score:
    """What a row is worth that got an error instead of an answer: wrong, whatever it asked."""
    must = bool(row.calls)
    return Score(must_call=must, called=not must, fault="no_answer", **WRONG)


def is_valid(functions: Sequence[Function], call: FunctionCall) -> bool:
    """Whether a call satisfies the schema of a tool that is on offer."""
    schema = next((f.schema for f in functions if f.name == call.name), None)
    if schema is None:
        return False
    try:
        return jsonschema_rs.is_valid(
            msgspec.json.decode(schema), msgspec.json.decode(call.arguments)
        )
    except (ValueError, RecursionError):
        return False


def right_calls(row: Row) -> list[bfcl.Right]:
    """The row's right calls as BFCL's rules want them: every argument with its right values."""
    accepted = _accepted_values(row)
    return [bfcl.Right(call.name, values) for call, values in zip(row.calls, accepted, strict=True)]


def _accepted_values(row: Row) -> list[Accepted]:
    if row.accepted:
        return [{k: msgspec.json.decode(v) for k, v in one.items()} for one in row.accepted]
    return [_only(_decoded(call)) for call in row.calls]


def _only(arguments: Any) -> Accepted:
    """Each value as the only right one; objects hold lists of right values again."""
    given = arguments if isinstance(arguments, dict) else {}
    return {key: [_nested(value)] for key, value in given.items()}


def _nested(value: Any) -> Any:
    if isinstance(value, dict):
        return _only(value)
    return [_nested(one) for one in value] if isinstance(value, list) else value


def _decoded(call: FunctionCall) -> Any:
    """The call's arguments; None where they are no JSON."""
    try:
        return msgspec.json.decode(call.arguments)
    except (ValueError, RecursionError):
        return None


# ------------------------------------------------------------------ several calls

Fits: TypeAlias = Callable[[FunctionCall], bool]


def _paired(given: Sequence[FunctionCall], right: Sequence[Fits]) -> bool:
    """Whether each right call has a given one of its own; the first that fits is taken."""
    left = list(given)
    for fits in right:
        found = next((call for call in left if fits(call)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _equal(row: Row) -> list[Fits]:
    def fits(right: FunctionCall) -> Fits:
        expected = msgspec.json.decode(right.arguments)
        return lambda call: call.name == right.name and _is_exactly(_decoded(call), expected)

    return [fits(call) for call in row.calls]


def _is_exactly(given: Any, expected: Any) -> bool:
    return isinstance(given, dict) and same(given, expected)


def _acceptable(row: Row) -> list[Fits]:
    def fits(name: str, accepted: Accepted) -> Fits:
        return lambda call: call.name == name and _accepted(_decoded(call), accepted)

    return [fits(call.name, a) for call, a in zip(row.calls, _accepted_values(row), strict=True)]


# ------------------------------------------------------------------ values


def _accepted(given: Any, accepted: Accepted) -> bool:
    if not isinstance(given, dict) or not given.keys() <= accepted.keys():
        return False
    return all(
        any(_is_one(given[name], value) for value in values)
        if name in given
        else bfcl.may_be_left_out(values)
        for name, values in accepted.items()
    )


def _is_one(given: Any, value: Any) -> bool:
    """Whether a value is the accepted one; nested objects hold lists of accepted values again."""
    if isinstance(given, dict) and isinstance(value, dict):
        return _accepted(given, {k: v if isinstance(v, list) else [v] for k, v in value.items()})
    if isinstance(given, list) and isinstance(value, list):
        return len(given) == len(value) and all(map(_is_one, given, value))
    return same(given, value, "bfcl")
