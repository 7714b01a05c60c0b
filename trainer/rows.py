"""The canonical row: a conversation, the tools that it offers, and the right answer.

Arguments and schemas are kept as JSON texts, so that no storage ever merges the keys of one row
into another. A row's id is the hash of its content, arguments and schemas spelt canonically: the
same row has the same id everywhere, whoever wrote its JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.canonical import canonical
from trainer.errors import DatasetError

ABSTAIN = "None of the available tools can do that."
"""What is said where nothing must be called. One sentence: the model learns when, not what."""


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who says that the answer is right."""

    kind: Literal["log", "import", "relabel", "human", "synthetic"]
    """`log`: the cloud's answer in the record; `import`: the source's own; `relabel`: a model asked
    afterwards; `human`: a demonstration; `synthetic`: made together with the question."""
    by: str = ""
    """The model's snapshot id, or the person's key name; empty where the source does not say."""
    agreement: float | None = None
    """Share of the teacher's samples that gave this answer, 0 to 1; None where only one was asked.
    """
    tool_outcome: Literal["ok", "error"] | None = None
    """What the called tools then said, an error if one of them did; None where it is not known."""
    student: bool = False
    """Whether a local model gave this answer: it would learn from itself."""
    approved: bool | None = None
    """What a person said of it, thumbs up or down; None where nobody did."""
    disputed: bool = False
    """Whether somebody else answered the same request differently: a committee should look."""

    @property
    def is_trusted(self) -> bool:
        """Whether it may be learnt. A student's own answer may only where the tools worked and a
        person or a committee agrees."""
        agreed = self.approved is True or (self.agreement or 0.0) > 0.5
        return not self.student or (self.tool_outcome == "ok" and agreed)


class Workflow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step's place in a workflow of several steps: CEP/1, docs/formats.md."""

    version: str = "1"
    id: str
    step: int
    """From 0."""
    steps: int | None = None
    """None where the workflow's length is not known."""
    goal: str = ""
    dropped: list[int] = []
    """Messages, by their number in the whole conversation, that the model was not shown."""
    abandoned: list[str] = []
    """Ids of calls that nobody ever answered, and that is as it should be."""
    expected: msgspec.Raw = msgspec.Raw(b"null")
    """JSON: what the end must look like, for closed-loop runs."""
    outcome: Literal["ok", "error"] | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One example. `calls` says what to call, `text` what to say instead, or beside it."""

    messages: list[Message]
    """What the model is shown: the conversation up to, and without, the answer."""
    functions: list[Function]
    calls: list[FunctionCall] = []
    text: str = ""
    unlearnt: list[int] = []
    """Numbers of the assistant's messages in `messages` that are there as context only: mistakes,
    say, that a later step repairs."""
    accepted: list[dict[str, msgspec.Raw]] = []
    """Per call: argument → JSON list of the values that are right; "" in it: may be left out.
    Empty where only the values in `calls` are right."""
    cep: Workflow | None = None
    format: str = ""
    """Prompt format that it is to be learnt in, one of the recipe's; empty: the recipe's first."""
    domain: str = ""
    """Empty: the recipe's."""
    tenant: str = "default"
    label: Label = Label(kind="import")
    source: str
    """Where it comes from, as precisely as the source can say: kind, file or URL, line or id."""
    license: str
    author: str = ""
    """Whom the licence asks to name."""
    exchange: str = ""
    """Id of the recorded exchange that it was made of."""
    at: float | None = None
    """When it was said, in seconds since the epoch; None where the source has no time."""
    group: str
    """Rows of one group, such as a conversation, stay on one side of every split."""

    @property
    def id(self) -> str:
        """Content hash, 16 hexadecimal digits."""
        shown = (
            [_message(message) for message in self.messages],
            [_function(function) for function in self.functions],
            [_call(call) for call in self.calls],
            self.text,
        )
        return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:16]

    @property
    def question(self) -> str:
        """What the user said last."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


def _message(message: Message) -> Message:
    if not message.tool_calls:
        return message
    calls = [
        replace(past, function=_call(past.function)) if past.function else past
        for past in message.tool_calls
    ]
    return replace(message, tool_calls=calls)


def _function(function: Function) -> Function:
    schema = canonical(bytes(function.parameters).decode())
    return replace(function, parameters=msgspec.Raw(schema.encode()))


def _call(call: FunctionCall) -> FunctionCall:
    return FunctionCall(call.name, canonical(call.arguments))


def write(path: Path, rows: Iterable[Row]) -> int:
    """One row a line, in JSON; how many."""
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")
            count += 1
    return count


def read(path: Path) -> Iterator[Row]:
    """The rows in `path`; raises DatasetError with the line's number for one that is broken."""
    decoder = msgspec.json.Decoder(Row)
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; build the dataset again") from error
    with opened as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise DatasetError(f"{path}:{number}: {error}") from error
