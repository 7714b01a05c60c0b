"""A file format of training rows: one line to one row and back.

What a format can say is read and written without loss: `write(read(line))` is the line again, up
to the spelling of its JSON and the ids of the answer's calls, which nobody refers to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from proxy.protocol.formats.base import dumps
from proxy.protocol.openai import Function, FunctionCall, Message, PastCall
from trainer.rows import Row

T = TypeVar("T")


class BadRow(ValueError):
    """A line that is no row, or a row that a format cannot say. `reason` is a code to count by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason.replace("_", " "))
        self.reason = reason


class Format(NamedTuple):
    """How the lines of a file are read and written; both raise BadRow."""

    read: Callable[[bytes], Row]
    """A line as a row without source and licence, which no line tells."""
    write: Callable[[Row], bytes]
    """One line, without its end."""


def decoded(line: bytes | str, kind: type[T]) -> T:
    """The JSON value in a line, of this type; raises BadRow."""
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.ValidationError as error:
        raise BadRow("missing_or_wrong_field", str(error)) from None
    except UnicodeDecodeError as error:
        raise BadRow("not_utf8", f"byte {error.start} is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRow("not_json", str(error)) from None


def encoded(value: object) -> bytes:
    """One line of JSON; keys in the order given, parts that are JSON already as they are."""
    return msgspec.json.encode(value)


def row(
    messages: list[Message],
    functions: Iterable[Function],
    calls: Iterable[FunctionCall] = (),
    text: str = "",
) -> Row:
    """A row of what a line says. Conversations that begin alike belong together."""
    said = next((message.text for message in messages if message.role == "user"), "")
    return Row(
        messages=messages,
        functions=list(functions),
        calls=list(calls),
        text=text,
        source="",
        license="",
        group=" ".join(said.lower().split()),
    )


# ---------------------------------------------------------------- formats without call ids


def call_text(call: FunctionCall) -> str:
    """`{"name": …, "arguments": {…}}`, the arguments as they were written."""
    return f'{{"name": {dumps(call.name)}, "arguments": {call.arguments}}}'


class Numbering:
    """Gives calls ids in the order of the conversation, and results the id that they answer."""

    def __init__(self) -> None:
        self._given = 0
        self._waiting: Iterator[str] = iter(())

    def asked(self, text: str, calls: Iterable[FunctionCall]) -> Message:
        """An assistant's message with these calls."""
        past = [PastCall(id=self._next(), function=call) for call in calls]
        self._waiting = iter([call.id for call in past])
        return Message(role="assistant", content=text or None, tool_calls=past or None)

    def answered(self, content: str, name: str | None = None) -> Message:
        """A tool's result, for the first call that has none yet; raises BadRow."""
        id = next(self._waiting, None)
        if id is None:
            raise BadRow("result_answers_no_call")
        return Message(role="tool", tool_call_id=id, content=content, name=name)

    def _next(self) -> str:
        self._given += 1
        return f"call_{self._given}"


def last_answer(messages: list[Message]) -> Row:
    """A conversation that ends with the assistant, as a row without functions; raises BadRow."""
    if not messages or messages[-1].role != "assistant":
        raise BadRow("no_answer", "the conversation does not end with an answer")
    answer = messages[-1]
    calls = [past.function for past in answer.tool_calls or () if past.function]
    return row(messages[:-1], (), calls, answer.text)


def refuse(row: Row, **lost: object) -> None:
    """Raise BadRow for what the format has no place for; `lost` is name → value or nothing."""
    told = [name for name, value in lost.items() if value]
    if told:
        raise BadRow("not_expressible", f"the format has no place for {', '.join(told)}")
