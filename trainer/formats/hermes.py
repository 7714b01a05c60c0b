"""Hermes function calling: ShareGPT turns whose system message holds the tools, in `<tools>` tags.

    {"conversations": [{"from": "system", "value": "… <tools> […] </tools> …"},
                       {"from": "human", …}, {"from": "gpt", "value": "<tool_call>…"},
                       {"from": "tool", "value": "<tool_response>…</tool_response>"}, …]}

The tools are taken out of the system message, which keeps the empty tags as a mark of the place;
Hermes's own wording around them goes and comes back. Source: NousResearch,
hermes-function-calling-v1; the wording, Hermes-Function-Calling, README.
"""

from __future__ import annotations

import re

import msgspec
from msgspec.structs import replace

from proxy.protocol.formats.base import dumps
from proxy.protocol.formats.hermes import Hermes
from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.formats.base import BadRow, Numbering, decoded, encoded, last_answer, refuse
from trainer.formats.sharegpt import functions_in
from trainer.rows import Row

_WORDING = (
    "You are a function calling AI model. You are provided with function signatures within "
    "<tools></tools> XML tags. You may call one or more functions to assist with the user query. "
    "Don't make assumptions about what values to plug into functions. Here are the available "
    "tools: <tools> {} </tools> Use the following pydantic model json schema for each tool call "
    'you will make: {{"properties": {{"arguments": {{"title": "Arguments", "type": "object"}}, '
    '"name": {{"title": "Name", "type": "string"}}}}, "required": ["arguments", "name"], '
    '"title": "FunctionCall", "type": "object"}} For each function call return a json object with '
    "function name and arguments within <tool_call></tool_call> XML tags as follows:\n"
    '<tool_call>\n{{"arguments": <args-dict>, "name": <function-name>}}\n</tool_call>'
)
_BEGIN, _END = _WORDING.split("{}", 1)[0].format(), _WORDING.split("{}", 1)[1].format()
_TOOLS = re.compile(r"<tools>\s*(\[.*\])\s*</tools>", re.DOTALL)
_MARK = "<tools> [] </tools>"
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)
_hermes = Hermes()


class _Turn(msgspec.Struct, frozen=True):
    speaker: str = msgspec.field(name="from")
    value: str


class _Line(msgspec.Struct, frozen=True):
    conversations: list[_Turn]


def read(line: bytes) -> Row:
    turns = decoded(line, _Line).conversations
    system, functions = (
        _parted(turns[0].value) if turns and turns[0].speaker == "system" else ("", [])
    )
    messages = [Message(role="system", content=system)] if system else []
    numbering = Numbering()
    for turn in turns[1:] if turns and turns[0].speaker == "system" else turns:
        messages += _messages(turn, numbering)
    return replace(last_answer(messages), functions=functions)


def _messages(turn: _Turn, numbering: Numbering) -> list[Message]:
    match turn.speaker:
        case "human" | "user":
            return [Message(role="user", content=turn.value)]
        case "gpt" | "assistant":
            parsed = _hermes.parse(turn.value)
            if parsed.broken:
                raise BadRow("call_unreadable", "a <tool_call> holds no call")
            calls = [call.function for call in parsed.calls]
            return [numbering.asked(parsed.text if calls else turn.value, calls)]
        case "tool":
            said = _RESULT.findall(turn.value) or [turn.value]
            return [numbering.answered(one) for one in said]
        case "system":
            return [Message(role="system", content=turn.value)]
        case _:
            raise BadRow("unknown_role")


def _parted(system: str) -> tuple[str, list[Function]]:
    """What a system message says beside the tools, and the tools."""
    if system.endswith(_END) and _BEGIN in system:
        before, _, rest = system.partition(_BEGIN)
        return before.removesuffix("\n\n"), functions_in(rest.removesuffix(_END))
    found = _TOOLS.search(system)
    if found is None:
        return system, []
    kept = system[: found.start()] + _MARK + system[found.end() :]
    return kept, functions_in(found[1])


# ---------------------------------------------------------------- writing


def write(row: Row) -> bytes:
    refuse(row, weights=row.unlearnt)
    messages, system = list(row.messages), ""
    if messages and messages[0].role == "system":
        system = messages.pop(0).text
    turns = [_Turn("system", _joined(system, row.functions))] if system or row.functions else []
    for message in messages:
        _append(turns, message)
    turns.append(_said(row.text, row.calls))
    return encoded({"conversations": turns})


def _joined(system: str, functions: list[Function]) -> str:
    if not functions:
        return system
    tools = dumps([{"type": "function", "function": _plain(f)} for f in functions])
    if _MARK in system:
        return system.replace(_MARK, f"<tools> {tools} </tools>", 1)
    return (f"{system}\n\n" if system else "") + _BEGIN + tools + _END


def _plain(function: Function) -> object:
    return msgspec.json.decode(msgspec.json.encode(function))


def _append(turns: list[_Turn], message: Message) -> None:
    match message.role:
        case "assistant":
            calls = [past.function for past in message.tool_calls or () if past.function]
            turns.append(_said(message.text, calls))
        case "tool" | "function":
            said = f"<tool_response>\n{message.text}\n</tool_response>"
            if turns and turns[-1].speaker == "tool":
                said = f"{turns.pop().value}\n{said}"
            turns.append(_Turn("tool", said))
        case "user":
            turns.append(_Turn("human", message.text))
        case _:
            turns.append(_Turn("system", message.text))


def _said(text: str, calls: list[FunctionCall]) -> _Turn:
    parts = [text] if text else []
    return _Turn("gpt", "\n".join([*parts, _hermes.answer(calls)] if calls else parts))
