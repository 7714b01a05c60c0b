"""OpenAI's fine-tuning format: `{"messages": [… , the answer], "tools": […]}`.

Source: OpenAI API reference, "Supervised fine-tuning", chat format. Read besides: `weight` 0 on an
assistant's message, the older `functions` (written as `tools`), and a `cep` block for a step of a
workflow (docs/formats.md), which others ignore.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import asdict, replace

from proxy.protocol.openai import Function, FunctionCall, Message, Part, PastCall, Role, Tool
from trainer.formats.base import BadRow, decoded, encoded, last_answer
from trainer.rows import Row, Workflow


class _Message(Message, frozen=True, kw_only=True, omit_defaults=True):
    weight: int = 1


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    messages: list[_Message]
    tools: list[Tool] = []
    functions: list[Function] = []
    cep: Workflow | None = None


class _Call(msgspec.Struct, frozen=True):
    """A call, its type said, which readers demand."""

    id: str
    function: FunctionCall
    type: str = "function"


class _Written(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message, its empty content said: readers want the field beside `tool_calls`."""

    role: Role
    content: str | list[Part] | msgspec.UnsetType | None = msgspec.UNSET
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    weight: int = 1


def read(line: bytes) -> Row:
    """Raises BadRow: among others for images, custom tools and an answer of weight 0."""
    given = decoded(line, _Line)
    if not all(message.is_plain_text for message in given.messages):
        raise BadRow("not_plain_text", "images, audio, files or custom tools")
    if not given.messages or given.messages[-1].weight == 0:
        raise BadRow("no_answer", "there is no answer, or its weight is 0")
    read = last_answer([_current(message) for message in given.messages])
    unlearnt = [n for n, message in enumerate(given.messages) if message.weight == 0]
    return replace(read, functions=_functions(given), unlearnt=unlearnt, cep=given.cep)


def _functions(given: _Line) -> list[Function]:
    if any(tool.function is None for tool in given.tools):
        raise BadRow("not_plain_text", "custom tools")
    offered = [tool.function for tool in given.tools if tool.function is not None]
    return [*offered, *given.functions]


def _current(message: _Message) -> Message:
    """Without the weight; a call of before there were tools as one of today."""
    fields = {name: getattr(message, name) for name in Message.__struct_fields__}
    if message.function_call is None:
        return Message(**fields)
    call = PastCall(id="call_1", function=message.function_call)
    return Message(**fields | {"function_call": None, "tool_calls": [call]})


def write(row: Row) -> bytes:
    """Calls of the answer are numbered, `call_1` and so on."""
    messages = [_written(m, row, number) for number, m in enumerate(row.messages)]
    line = {"messages": [*messages, _answer(row)]}
    tools = [Tool("function", function) for function in row.functions]
    return encoded(
        line | ({"tools": tools} if tools else {}) | ({"cep": row.cep} if row.cep else {})
    )


def _written(message: Message, row: Row, number: int) -> _Written:
    fields = asdict(message)
    del fields["audio"]
    past = message.tool_calls or ()
    fields["tool_calls"] = [_Call(one.id, one.function) for one in past if one.function] or None
    if message.content is None and not past:
        fields["content"] = msgspec.UNSET
    return _Written(**fields, weight=0 if number in row.unlearnt else 1)


def _answer(row: Row) -> _Written:
    calls = [_Call(f"call_{number}", call) for number, call in enumerate(row.calls, start=1)]
    return _Written("assistant", row.text or None, tool_calls=calls or None)
