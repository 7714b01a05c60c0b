"""Texts as words and hashes: what duplicates and leaks are looked for in.

Hashes are 64 bits of BLAKE2b, the same on every machine and in every process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from trainer.canonical import canonical
from trainer.rows import Row

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"\"[^\"\n]{1,200}\"|'[^'\n]{2,200}'|`[^`\n]{1,200}`|“[^”\n]{1,200}”")
_NUMBER = re.compile(r"\d[\d.,:/-]*")
_NAME = re.compile(r"(?<=[a-z,;:] )[A-Z]\w*(?: [A-Z]\w*)*")


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def digest(text: str) -> int:
    """A hash of 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


def answer(row: Row) -> str:
    """What the row answers, written one way whatever the order of an argument's keys."""
    if not row.calls:
        return row.text
    return "\n".join(f"{call.name} {canonical(call.arguments)}" for call in row.calls)


def asked(row: Row) -> str:
    """What the user said, in all turns."""
    return "\n".join(message.text for message in row.messages if message.role == "user")


def shingles(row: Row, length: int) -> set[str]:
    """Runs of `length` words of what is asked and answered; shorter texts are one run."""
    return {*_runs(words(asked(row)), length), *_runs(words(answer(row)), length, ">")}


def _runs(of: Sequence[str], length: int, mark: str = "") -> Iterator[str]:
    if len(of) < length:
        yield mark + " ".join(of)
    for start in range(len(of) - length + 1):
        yield mark + " ".join(of[start : start + length])


def grams(text: str, length: int) -> set[int]:
    """Hashes of all runs of `length` words; none where the text is shorter."""
    said = words(text)
    return {digest(run) for run in _runs(said, length)} if len(said) >= length else set()


def template(question: str) -> str:
    """A question without its names, numbers and quotations, so that filled-in forms look alike."""
    plain = _QUOTED.sub("_", question)
    plain = _NAME.sub("_", plain)
    return " ".join(words(_NUMBER.sub("_", plain)))
