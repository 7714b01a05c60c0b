"""ShareGPT: `{"conversations": [{"from": "human", "value": …}, …], "system": …, "tools": "[…]"}`.

Roles and tools as LLaMA-Factory has them: `function_call` is a JSON text of a call or of a list of
calls, `observation` a tool's result; `tools` is a JSON text of functions. Other roles that are met
(`user`, `gpt`, `bing`, …) are read as what they mean and written with these names.
Source: LLaMA-Factory, data/README.md.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from proxy.protocol.openai import Function, FunctionCall, Message, Tool
from trainer.formats.base import (
    BadRow,
    Numbering,
    call_text,
    decoded,
    encoded,
    last_answer,
    refuse,
)
from trainer.rows import Row

_USERS = ("human", "user")
_ASSISTANTS = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")
_RESULTS = ("observation", "tool", "function_response")


class _Turn(msgspec.Struct, frozen=True):
    speaker: str = msgspec.field(name="from")
    value: str


class _Line(msgspec.Struct, frozen=True):
    conversations: list[_Turn]
    system: str | None = None
    tools: str | list[Function] | None = None


class _Call(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


def read(line: bytes) -> Row:
    given = decoded(line, _Line)
    messages = [Message(role="system", content=given.system)] if given.system else []
    numbering = Numbering()
    messages += [_message(turn, numbering) for turn in given.conversations]
    return replace(last_answer(messages), functions=functions_in(given.tools))


def _message(turn: _Turn, numbering: Numbering) -> Message:
    if turn.speaker in _USERS:
        return Message(role="user", content=turn.value)
    if turn.speaker in _ASSISTANTS:
        return Message(role="assistant", content=turn.value)
    if turn.speaker in _RESULTS:
        return numbering.answered(turn.value)
    if turn.speaker == "system":
        return Message(role="system", content=turn.value)
    if turn.speaker == "function_call":
        return numbering.asked("", _calls(turn.value))
    raise BadRow("unknown_role")


def _calls(text: str) -> list[FunctionCall]:
    is_list = text.lstrip().startswith("[")
    calls = decoded(text, list[_Call]) if is_list else [decoded(text, _Call)]
    return [FunctionCall(call.name, bytes(call.arguments).decode()) for call in calls]


def functions_in(tools: str | list[Function] | None) -> list[Function]:
    """The functions of a list, or of its JSON text, bare or as OpenAI's tools; raises BadRow."""
    if not isinstance(tools, str):
        return tools or []
    listed = decoded(tools or "[]", list[msgspec.Raw])
    return [_function(bytes(one)) for one in listed]


def _function(written: bytes) -> Function:
    if "type" in decoded(written, dict[str, msgspec.Raw]) and b'"function"' in written:
        tool = decoded(written, Tool)
        if tool.function is not None:
            return tool.function
    return decoded(written, Function)


def write(row: Row) -> bytes:
    refuse(row, weights=row.unlearnt)
    messages, system = list(row.messages), ""
    if messages and messages[0].role == "system":
        system = messages.pop(0).text
    turns = [_turn(message) for message in messages]
    turns.append(_said(row.text, row.calls))
    tools = encoded(row.functions).decode() if row.functions else ""
    more = {"system": system, "tools": tools}
    return encoded({"conversations": turns} | {k: v for k, v in more.items() if v})


def _turn(message: Message) -> _Turn:
    match message.role:
        case "user":
            return _Turn("human", message.text)
        case "tool" | "function":
            return _Turn("observation", message.text)
        case "assistant":
            calls = [past.function for past in message.tool_calls or () if past.function]
            return _said(message.text, calls)
        case _:
            return _Turn("system", message.text)


def _said(text: str, calls: list[FunctionCall]) -> _Turn:
    if text and calls:
        raise BadRow("not_expressible", "the format has no place for text beside a call")
    if not calls:
        return _Turn("gpt", text)
    written = ", ".join(map(call_text, calls))
    return _Turn("function_call", written if len(calls) == 1 else f"[{written}]")
