"""Is this tool call what the request's schema allows?

A call is checked against the JSON Schema that came with the request (draft 2020-12, or the draft
that its `$schema` names), and against `tool_choice` and `parallel_tool_calls`. References are
followed inside the schema only; nothing is ever fetched. The text of an answer is checked against
`response_format` in the same way.

A failure's message names tools and places of the request's own schemas, never what the answer
said, so that it may be logged and told to the model that erred.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import jsonschema_rs
import msgspec

from proxy.protocol import unfolding
from proxy.protocol.openai import (
    ChatRequest,
    Function,
    MalformedRequest,
    NamedChoice,
    Tool,
    ToolCall,
)

Reason: TypeAlias = Literal[
    "missing_call",
    "too_many_calls",
    "unknown_tool",
    "tool_not_allowed",
    "arguments_not_json",
    "arguments_not_object",
    "schema_violation",
    "answer_not_json",
    "answer_not_object",
    "answer_schema_violation",
]
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_NO_PARAMETERS = b'{"type":"object","additionalProperties":false}'
_CACHED_BYTES = 64 * 1024
"""Larger schemas are compiled anew each time, which bounds the cache's memory."""
_LEVELS = 2
"""Levels of a value for which a schema's references must not multiply, or it is refused at once.
Chosen: deeper ones may be recursive and good; there the answer's own depth decides."""
_REMEMBERED = 256
"""Lists of tools that need not be checked again; `parse_request` bounds their size."""
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=1024 * 1024)
"""A pattern comes from a client: its time and memory have limits. Chosen: some milliseconds."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an answer may not be given to the client."""

    reason: Reason
    message: str
    index: int | None = None
    """Which of the calls, from 0; None when it is not about a single call."""


# ---------------------------------------------------------------- answers


def check(calls: Sequence[ToolCall], request: ChatRequest) -> Failure | None:
    """The first thing that is wrong with the calls of a whole answer; None if nothing is.

    Custom tools have no schema: a call of one is checked by name only. Empty arguments count as
    `{}`, as some servers leave them out for functions without parameters.
    """
    if not calls:
        return _missing(request)
    if request.parallel_tool_calls is False and len(calls) > 1:
        return Failure(reason="too_many_calls", message=f"{len(calls)} calls where one is allowed")
    offered = {_name(tool): tool for tool in request.tools or ()}
    for index, call in enumerate(calls):
        failure = _check_call(call, offered, request)
        if failure is not None:
            return msgspec.structs.replace(failure, index=index)
    return None


def check_answer_format(text: str, request: ChatRequest) -> Failure | None:
    """What is wrong with an answer's text by `response_format`; None if nothing is."""
    asked = request.response_format
    if asked is None or asked.type not in ("json_object", "json_schema"):
        return None
    try:
        answer = _parsed(text)
    except ValueError:
        return Failure(reason="answer_not_json", message="the answer is not valid JSON")
    if asked.type == "json_object" or asked.json_schema is None:
        if isinstance(answer, dict):
            return None
        return Failure(reason="answer_not_object", message="the answer is not a JSON object")
    schema, strict = bytes(asked.json_schema.schema), bool(asked.json_schema.strict)
    problem = _problem(answer, schema, strict)
    if problem is None:
        return None
    return Failure(reason="answer_schema_violation", message=f"the answer: {problem}")


def _missing(request: ChatRequest) -> Failure | None:
    choice = request.tool_choice
    if isinstance(choice, NamedChoice):
        wanted = sorted(_allowed(choice) or ())
        if choice.is_required and wanted:
            names = " or ".join(repr(name) for name in wanted)
            return Failure(reason="missing_call", message=f"no call of {names}, which is required")
        return None
    if choice == "required":
        return Failure(reason="missing_call", message="no call where one is required")
    return None


def _check_call(call: ToolCall, offered: dict[str, Tool], request: ChatRequest) -> Failure | None:
    name = call.function.name
    tool = offered.get(name)
    if tool is None:
        return Failure(reason="unknown_tool", message="a call of a tool that is not offered")
    if not _is_allowed(name, request.tool_choice):
        return Failure(reason="tool_not_allowed", message=f"tool_choice rules out {name!r}")
    if tool.function is None:
        return None
    return _check_arguments(call.function.arguments, tool.function)


def _check_arguments(text: str, function: Function) -> Failure | None:
    try:
        arguments = _parsed(text) if text.strip() else {}
    except ValueError:
        message = f"the arguments of {function.name!r} are not valid JSON"
        return Failure(reason="arguments_not_json", message=message)
    if not isinstance(arguments, dict):
        message = f"the arguments of {function.name!r} are not a JSON object"
        return Failure(reason="arguments_not_object", message=message)
    problem = _problem(arguments, _schema(function), bool(function.strict))
    if problem is None:
        return None
    return Failure(reason="schema_violation", message=f"a call of {function.name!r}: {problem}")


def _is_allowed(name: str, choice: str | NamedChoice | None) -> bool:
    if choice == "none":
        return False
    if not isinstance(choice, NamedChoice):
        return True
    allowed = _allowed(choice)
    return allowed is None or name in allowed


def _allowed(choice: NamedChoice) -> set[str] | None:
    """The only tools that may be called; None where the choice restricts nothing that we know."""
    if choice.allowed_tools is not None:
        return {name for one in choice.allowed_tools.tools for name in _allowed(one) or ()}
    named = choice.function or choice.custom
    return None if named is None else {named.name}


def _parsed(text: str) -> Json:
    """The JSON value in `text`; raises ValueError where there is none, or a bottomless one."""
    try:
        value: Json = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


# ---------------------------------------------------------------- requests


def check_tools(request: ChatRequest) -> None:
    """Raise MalformedRequest, with the field's path, for what answers cannot be checked against.

    That is a schema of a tool or of `response_format` that is none, or that refers to something
    outside of itself, and a second tool of the same name.
    """
    if request.tools_json:
        _check_remembered(request.tools_json)
    else:
        _check_tools(request.tools or ())
    _check_response_format(request)


@functools.lru_cache(maxsize=_REMEMBERED)
def _check_remembered(tools: bytes) -> None:
    _check_tools(msgspec.json.decode(tools, type=list[Tool]))


def _check_tools(tools: Sequence[Tool]) -> None:
    names: set[str] = set()
    for index, tool in enumerate(tools):
        name = _name(tool)
        if name in names:
            path = f"$.tools[{index}].{tool.type}.name"
            raise MalformedRequest(f"a tool named {name!r} is offered twice (at {path})", path)
        names.add(name)
        if tool.function is not None:
            path = f"$.tools[{index}].function.parameters"
            _check_schema(_schema(tool.function), bool(tool.function.strict), path)


def _check_response_format(request: ChatRequest) -> None:
    asked = request.response_format
    if asked is None or asked.type != "json_schema":
        return
    if asked.json_schema is None:
        path = "$.response_format.json_schema"
        raise MalformedRequest(f"a json_schema is missing (at {path})", path)
    path = "$.response_format.json_schema.schema"
    _check_schema(bytes(asked.json_schema.schema), bool(asked.json_schema.strict), path)


def _check_schema(schema: bytes, strict: bool, path: str) -> None:
    try:
        _validator(schema, strict)
    except _BrokenSchema as error:
        raise MalformedRequest(f"{error} (at {path})", path) from None


def _name(tool: Tool) -> str:
    if tool.function is not None:
        return tool.function.name
    try:
        return msgspec.json.decode(tool.custom, type=_Custom).name
    except (ValueError, RecursionError):
        return ""


class _Custom(msgspec.Struct, frozen=True):
    name: str


# ---------------------------------------------------------------- fingerprints


def fingerprint(function: Function) -> str:
    """`sha256:…` of a function's name and of what its schema allows.

    Wording does not count (descriptions, titles, examples, comments), nor does the order of keys:
    an adapter must not be taken out of service because a sentence was polished. Raises
    MalformedRequest when the parameters are no JSON object.
    """
    return _fingerprint(function.name, _schema(function))


def fingerprint_offered(request: ChatRequest) -> str | None:
    """`fingerprint_tools` of what a request offers; None where that is nothing."""
    if request.tools_json:
        return _fingerprint_remembered(request.tools_json)
    return fingerprint_tools(request.offered) if request.offered else None


@functools.lru_cache(maxsize=_REMEMBERED)
def _fingerprint_remembered(tools: bytes) -> str | None:
    offered = [tool.function for tool in msgspec.json.decode(tools, type=list[Tool])]
    functions = [function for function in offered if function is not None]
    return fingerprint_tools(functions) if functions else None


def fingerprint_tools(functions: Iterable[Function]) -> str:
    """`sha256:…` of a set of functions, whatever their order."""
    return _sha256("\n".join(sorted(map(fingerprint, functions))).encode())


@functools.lru_cache(maxsize=1024)
def _fingerprint(name: str, schema: bytes) -> str:
    try:
        plain = _changed(_loaded(schema), _without_wording)
    except _BrokenSchema as error:
        raise MalformedRequest(f"function {name!r}: {error}") from None
    canonical = {"name": name, "parameters": plain}
    return _sha256(msgspec.json.encode(canonical, order="deterministic"))


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# ---------------------------------------------------------------- schemas


def validator(function: Function) -> jsonschema_rs.Validator:
    """The compiled schema of a function that `check_tools` has passed."""
    return _validator(_schema(function), bool(function.strict))


class _BrokenSchema(ValueError):
    """The schema cannot be compiled; the message is for the client who sent it."""


def _schema(function: Function) -> bytes:
    schema = bytes(function.parameters)
    return _NO_PARAMETERS if schema in (b"", b"null") else schema


def _problem(value: Json, schema: bytes, strict: bool) -> str | None:
    """Where and how the value breaks the schema, in words that do not quote the value."""
    validator = _validator(schema, strict)
    if unfolding.is_folded(schema) and _is_too_much(value, schema):
        return "$ is nested too deeply for the schema's references to be followed"
    if validator.is_valid(value):
        return None
    error = next(iter(validator.iter_errors(value)))
    return f"{_place(error, schema)} {_words(error.kind)}"


def _is_too_much(value: Json, schema: bytes) -> bool:
    places, levels = unfolding.size(value)
    return places * _looks(schema, levels) > unfolding.MOST


@functools.lru_cache(maxsize=1024)
def _looks(schema: bytes, levels: int) -> int:
    try:
        return unfolding.looks(_loaded(schema), levels)
    except RecursionError:
        return unfolding.MOST + 1


def _place(error: jsonschema_rs.ValidationError, schema: bytes) -> str:
    """The path of the offending value; keys that the model made up are shown as `*`."""
    return "$" + "".join(_step(step, schema) for step in error.instance_path)


def _step(step: str | int, schema: bytes) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if msgspec.json.encode(step) in schema else ".*"


def _words(kind: jsonschema_rs.ValidationErrorKind) -> str:
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return f"lacks the required property {name!r}"
        case jsonschema_rs.ValidationErrorKind.Type(types=types):
            return f"is not of type {' or '.join(types)}"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            return "has a property that is not allowed"
        case _:
            return f"breaks the schema's {kind.name!r}"


def _validator(schema: bytes, strict: bool) -> jsonschema_rs.Validator:
    """The compiled schema; raises _BrokenSchema."""
    compile_ = _cached if len(schema) <= _CACHED_BYTES else _compiled
    return compile_(schema, strict)


def _compiled(schema: bytes, strict: bool) -> jsonschema_rs.Validator:
    loaded = _loaded(schema)
    if unfolding.is_folded(schema) and _looks(schema, _LEVELS) > unfolding.MOST:
        raise _BrokenSchema("the JSON Schema's references multiply beyond all measure")
    if strict:
        loaded = _changed(loaded, _closed)
    try:
        return _draft(loaded)(
            loaded, validate_formats=True, offline=True, pattern_options=_PATTERNS
        )
    except jsonschema_rs.ValidationError as error:
        raise _BrokenSchema(_why_broken(error, schema)) from None
    except ValueError as error:
        raise _BrokenSchema(f"the JSON Schema cannot be used: {error}") from None


def _why_broken(error: jsonschema_rs.ValidationError, schema: bytes) -> str:
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Referencing):
        return "the JSON Schema has a $ref that leads nowhere inside of it; others are not followed"
    return f"not a valid JSON Schema: {error.message[:200]}, in {_place(error, schema)}"


_cached = functools.lru_cache(maxsize=512)(_compiled)


def _draft(schema: dict[str, Json]) -> type[jsonschema_rs.Validator]:
    named = schema.get("$schema")
    if not isinstance(named, str):
        return jsonschema_rs.Draft202012Validator
    # Whatever it does not know, it takes for draft 2020-12.
    return jsonschema_rs.validator_cls_for({"$schema": named})


def _loaded(schema: bytes) -> dict[str, Json]:
    try:
        loaded: dict[str, Json] = msgspec.json.decode(schema, type=dict)
    except ValueError:
        raise _BrokenSchema("a schema must be a JSON object") from None
    except RecursionError:
        raise _BrokenSchema("the schema is nested too deeply") from None
    return loaded


_Change: TypeAlias = Callable[[dict[str, Json]], dict[str, Json]]

_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value maps names to schemas."""
_NESTED = frozenset({
    "additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "else", "if", "items",
    "not", "oneOf", "prefixItems", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties",
})  # fmt: skip
"""Keywords whose value is a schema or a list of schemas."""
_COMBINED = frozenset({"allOf", "oneOf", "anyOf", "if", "$ref"})


def _changed(schema: dict[str, Json], change: _Change) -> dict[str, Json]:
    try:
        return _mapped(schema, change)
    except RecursionError:
        raise _BrokenSchema("the schema is nested too deeply") from None


def _mapped(schema: dict[str, Json], change: _Change) -> dict[str, Json]:
    """The schema with `change` made to each schema in it, the innermost first."""
    return change({key: _mapped_value(key, value, change) for key, value in schema.items()})


def _mapped_value(key: str, value: Json, change: _Change) -> Json:
    match value:
        case dict() if key in _NESTED:
            return _mapped(value, change)
        case dict() if key in _NAMED:
            return {name: _mapped_value("not", one, change) for name, one in value.items()}
        case list() if key in _NESTED:
            return [_mapped_value("not", one, change) for one in value]
        case _:
            return value


def _closed(schema: dict[str, Json]) -> dict[str, Json]:
    """The schema as `strict` means it: an object has the properties that are named, and no others.

    A schema that combines others is left as it is: closed parts would exclude one another.
    """
    if "properties" not in schema or "additionalProperties" in schema or _COMBINED & schema.keys():
        return schema
    return {**schema, "additionalProperties": False}


def _without_wording(schema: dict[str, Json]) -> dict[str, Json]:
    wording = ("description", "title", "examples", "$comment")
    return {key: value for key, value in schema.items() if key not in wording}
