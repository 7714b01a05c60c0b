"""Tombstones: which exchanges were erased. Whatever was made of them is tainted.

Files `tombstones/….jsonl` in the record's directory and in its archive, one tombstone a line, each
written once. A dataset lists the ids that it was made of (or can say whether it has one): if one of
them has a tombstone, the dataset, and each adapter trained on it, is tainted. A tombstone says
nothing of what was erased but its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

FOLDER = "tombstones"
SUFFIX = ".jsonl"

Reason: TypeAlias = Literal["caller", "tenant", "conversation", "matching"]


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange is gone."""

    id: str
    """Of the exchange."""
    tenant: str
    erased_at: float
    """Seconds since the epoch."""
    reasons: list[Reason]
    """By what it was chosen; not by which value."""


_decoder = msgspec.json.Decoder(Tombstone)


def encode(tombstones: Iterable[Tombstone]) -> bytes:
    """The content of a file of tombstones."""
    return msgspec.json.Encoder().encode_lines(list(tombstones))


def decode(content: bytes) -> list[Tombstone]:
    """The tombstones of a file; raises msgspec.DecodeError."""
    return _decoder.decode_lines(content)


def read(directory: Path) -> Iterator[Tombstone]:
    """The tombstones of a record's directory, oldest file first."""
    for path in sorted((directory / FOLDER).glob(f"*{SUFFIX}")):
        yield from decode(path.read_bytes())


def erased(directory: Path) -> frozenset[str]:
    """The ids of all exchanges that were erased from a record."""
    return frozenset(one.id for one in read(directory))
