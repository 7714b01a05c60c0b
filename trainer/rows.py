"""The canonical row: a conversation, the tools that it offers, and the right answer.

Arguments and schemas are kept as JSON texts, so that no storage ever merges the keys of one row
into another. A row's id is the hash of its content: the same row has the same id everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.errors import DatasetError


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One example. Either `calls` says what to call, or `text` what to say instead."""

    messages: list[Message]
    functions: list[Function]
    calls: list[FunctionCall] = []
    text: str = ""
    accepted: list[dict[str, msgspec.Raw]] = []
    """Per call: argument → JSON list of the values that are right; "" in it: may be left out.
    Empty where only the values in `calls` are right."""
    source: str
    """Where it comes from, as precisely as the source can say."""
    license: str
    group: str
    """Rows of one group stay on one side of every split."""

    @property
    def id(self) -> str:
        """Content hash, 16 hexadecimal digits."""
        shown = (self.messages, self.functions, self.calls, self.text)
        return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:16]

    @property
    def question(self) -> str:
        """What the user said last."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


def write(path: Path, rows: Iterable[Row]) -> None:
    """One row a line, in JSON."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


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
