"""Alpaca: `{"instruction": …, "input": …, "output": …}`, and LLaMA-Factory's `system`, `history`.

Instruction and input are two parts of one message, so that they can be told apart again.
Source: Stanford Alpaca, "Data release"; LLaMA-Factory, data/README.md.
"""

from __future__ import annotations

import msgspec

from proxy.protocol.openai import Message, Part
from trainer.formats.base import BadRow, decoded, encoded, refuse, row
from trainer.rows import Row

_BETWEEN = "\n\n"


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    instruction: str
    input: str | None = ""
    output: str
    system: str | None = ""
    history: list[tuple[str, str]] | None = []


def read(line: bytes) -> Row:
    given = decoded(line, _Line)
    messages = [Message(role="system", content=given.system)] if given.system else []
    for question, answer in given.history or ():
        messages += [Message(role="user", content=question)]
        messages += [Message(role="assistant", content=answer)]
    messages.append(question_of(given.instruction, given.input or ""))
    return row(messages, (), text=given.output)


def question_of(instruction: str, input: str = "") -> Message:
    """The user's message of an instruction and the text that it is about."""
    if not input:
        return Message(role="user", content=instruction)
    parts = [Part("text", instruction), Part("text", _BETWEEN + input)]
    return Message(role="user", content=parts)


def write(row: Row) -> bytes:
    refuse(row, tools=row.functions, calls=row.calls, weights=row.unlearnt)
    messages = list(row.messages)
    system = messages.pop(0).text if messages and messages[0].role == "system" else ""
    if [m.role for m in messages] != [*("user", "assistant") * (len(messages) // 2), "user"]:
        raise BadRow("not_expressible", "the format has questions and answers only")
    *past, asked = messages
    pairs = zip(past[::2], past[1::2], strict=True)
    instruction, input = _parted(asked)
    line = {"instruction": instruction, "input": input, "output": row.text}
    more = {"system": system, "history": [(a.text, b.text) for a, b in pairs]}
    return encoded(line | {name: value for name, value in more.items() if value})


def _parted(message: Message) -> tuple[str, str]:
    match message.content:
        case [first, second] if second.text.startswith(_BETWEEN):
            return first.text, second.text.removeprefix(_BETWEEN)
        case _:
            return message.text, ""
