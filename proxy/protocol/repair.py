"""Puts right what an answer's calls get wrong in form only: nothing is guessed, nothing is lost.

| code        | the model wrote                 | the schema wants      | the client gets    |
|-------------|---------------------------------|-----------------------|--------------------|
| json_syntax | `{city: 'Oslo',}`               | JSON                  | `{"city":"Oslo"}`  |
| number      | `"3"`                           | a number              | `3`                |
| boolean     | `"true"`                        | a boolean             | `true`             |
| array       | `"a"`                           | an array              | `["a"]`            |
| enum_case   | `"celsius"`                     | one of `["Celsius"]`  | `"Celsius"`        |

A call that is still wrong after that stays what it was: another attempt may do better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import jsonschema_rs
import msgspec
import pyjson5

from proxy.protocol import schemas, strict_json, toolcheck
from proxy.protocol.openai import ChatRequest, Function, FunctionCall, ToolCall
from proxy.protocol.schemas import Json

Code: TypeAlias = Literal["json_syntax", "number", "boolean", "array", "enum_case"]
Kind = jsonschema_rs.ValidationErrorKind

_MOST = 32
"""Changes to one call; an answer that needs more is not worth saving."""
_LONGEST = 256 * 1024
"""Characters of arguments that are read again by the lenient parser."""
_DEEPEST = 64


class Repaired(NamedTuple):
    """Calls that pass, and what was done to them, in order."""

    calls: list[ToolCall]
    codes: list[Code]


def repair(calls: Sequence[ToolCall], request: ChatRequest) -> Repaired | None:
    """The calls put right; None where that cannot be done without a guess."""
    offered = {function.name: function for function in request.offered}
    codes: list[Code] = []
    mended = [_mended(call, offered.get(call.function.name), codes) for call in calls]
    if not codes or toolcheck.check(mended, request) is not None:
        return None
    return Repaired(mended, codes)


def _mended(call: ToolCall, function: Function | None, codes: list[Code]) -> ToolCall:
    if function is None:
        return call
    try:
        before = len(codes)
        arguments = _mend(_read(call.function.arguments, codes), function, codes)
    except _BeyondRepair:
        return call
    if len(codes) == before:
        return call
    text = msgspec.json.encode(arguments).decode()
    return msgspec.structs.replace(call, function=FunctionCall(call.function.name, text))


class _BeyondRepair(Exception):
    """Only a guess could go on."""


# ------------------------------------------------------------------ syntax


def _read(text: str, codes: list[Code]) -> Json:
    """The JSON value in a text, read as JSON5 where it is none; raises _BeyondRepair."""
    try:
        value: Json = msgspec.json.decode(text or "{}")
        strict_json.loads((text or "{}").encode())
        return value
    except strict_json.NotStrict as error:
        # Which of two values of one key was meant is anybody's guess.
        raise _BeyondRepair from error
    except (ValueError, RecursionError):
        pass
    if len(text) > _LONGEST:
        raise _BeyondRepair
    try:
        value = pyjson5.decode(text, maxdepth=_DEEPEST)
    except (pyjson5.Json5Exception, ValueError) as error:
        raise _BeyondRepair from error
    if not _is_finite(value):
        raise _BeyondRepair
    codes.append("json_syntax")
    return value


def _is_finite(value: Json) -> bool:
    """False where the value holds what JSON cannot: JSON5 knows infinities."""
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list():
            return all(map(_is_finite, value))
        case _:
            return True


# ------------------------------------------------------------------ values


class _Fix(NamedTuple):
    path: list[str | int]
    value: Json
    code: Code


def _mend(value: Json, function: Function, codes: list[Code]) -> Json:
    validator = schemas.validator(function)
    for _ in range(_MOST):
        error = schemas.complaint(validator, value)
        if error is None:
            return value
        fix = _fix(error, value)
        if fix is None:
            raise _BeyondRepair
        value = _with(value, fix.path, fix.value)
        codes.append(fix.code)
    raise _BeyondRepair


def _fix(error: jsonschema_rs.ValidationError, root: Json) -> _Fix | None:
    """The change that this complaint asks for; None where it would be a guess."""
    path = list(error.instance_path)
    match error.kind:
        case Kind.Type(types=types):
            made = _of_type(_at(root, path), types)
        case Kind.Enum(options=options):
            made = _of_options(_at(root, path), options)
        case Kind.AnyOf(context=branches) | Kind.OneOfNotValid(context=branches):
            return _of_branches(branches, root)
        case _:
            return None
    return None if made is None else _Fix(path, *made)


def _of_branches(
    branches: Sequence[Sequence[jsonschema_rs.ValidationError]], root: Json
) -> _Fix | None:
    """The change for the first alternative that a single one would satisfy."""
    single = (_fix(errors[0], root) for errors in branches if len(errors) == 1)
    return next((fix for fix in single if fix is not None), None)


def _of_type(value: Json, types: Sequence[str]) -> tuple[Json, Code] | None:
    if isinstance(value, str) and {"integer", "number"} & set(types):
        number = _number(value, "number" in types)
        if number is not None:
            return number, "number"
    if "boolean" in types and value in ("true", "false"):
        return value == "true", "boolean"
    if "array" in types and not isinstance(value, list) and value is not None:
        return [value], "array"
    return None


def _number(text: str, or_fraction: bool) -> int | float | None:
    try:
        number = msgspec.json.decode(text.strip(), type=int | float)
    except (ValueError, RecursionError):
        return None
    if isinstance(number, float) and number.is_integer() and abs(number) < 2**53:
        return int(number)
    return number if or_fraction or isinstance(number, int) else None


def _of_options(value: Json, options: Sequence[object]) -> tuple[Json, Code] | None:
    if not isinstance(value, str):
        return None
    alike = [o for o in options if isinstance(o, str) and o.casefold() == value.strip().casefold()]
    return (alike[0], "enum_case") if len(alike) == 1 else None


def _at(value: Json, path: Sequence[str | int]) -> Json:
    for step in path:
        value = value[step]  # type: ignore[index]  # the validator walked here
    return value


def _with(value: Json, path: Sequence[str | int], new: Json) -> Json:
    """A copy of the value with another one at the path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)  # type: ignore[arg-type]
    copy[path[0]] = _with(copy[path[0]], path[1:], new)  # type: ignore[index]
    return copy
