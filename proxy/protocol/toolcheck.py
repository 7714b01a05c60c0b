"""Is this tool call what the request's schema allows?

A call is checked against the JSON Schema that came with the request (schemas), and against
`tool_choice` and `parallel_tool_calls`. The text of an answer is checked against `response_format`
in the same way.

A failure's message names tools and places of the request's own schemas, never what the answer
said, so that it may be logged and told to the model that erred.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol import schemas, strict_json
from proxy.protocol.openai import (
    ChatRequest,
    Function,
    MalformedRequest,
    NamedChoice,
    Tool,
    ToolCall,
)
from proxy.protocol.schemas import BrokenSchema, Json

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
_REMEMBERED = 256
"""Lists of tools that need not be checked again; `parse_request` bounds their size."""


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
    problem = schemas.problem(answer, schema, strict)
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
    problem = schemas.problem(arguments, schemas.of(function), bool(function.strict))
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
    """The JSON value in `text`, read by everybody alike; raises ValueError where there is none.

    A key that is there twice has one value for us, and perhaps another one for the client.
    """
    try:
        value: Json = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    strict_json.loads(text.encode())
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
    patterns = 0
    for index, tool in enumerate(tools):
        name = _name(tool)
        if name in names:
            path = f"$.tools[{index}].{tool.type}.name"
            raise MalformedRequest(f"a tool named {name!r} is offered twice (at {path})", path)
        names.add(name)
        if tool.function is not None:
            path = f"$.tools[{index}].function.parameters"
            patterns += _patterns(schemas.of(tool.function), path)
            if patterns > schemas.MOST_PATTERNS:
                raise MalformedRequest(
                    f"more patterns than {schemas.MOST_PATTERNS} (at {path})", path
                )
            _check_schema(schemas.of(tool.function), bool(tool.function.strict), path)


def _check_response_format(request: ChatRequest) -> None:
    asked = request.response_format
    if asked is None or asked.type != "json_schema":
        return
    if asked.json_schema is None:
        path = "$.response_format.json_schema"
        raise MalformedRequest(f"a json_schema is missing (at {path})", path)
    path = "$.response_format.json_schema.schema"
    _check_schema(bytes(asked.json_schema.schema), bool(asked.json_schema.strict), path)


def _patterns(schema: bytes, path: str) -> int:
    try:
        return schemas.patterns(schema)
    except BrokenSchema as error:
        raise MalformedRequest(f"{error} (at {path})", path) from None


def _check_schema(schema: bytes, strict: bool, path: str) -> None:
    try:
        schemas.compiled(schema, strict)
    except BrokenSchema as error:
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
