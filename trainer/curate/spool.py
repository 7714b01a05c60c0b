"""Rows on disk that are reached by number: what a build holds on to, out of memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import msgspec

from trainer.rows import Row

_decoder = msgspec.json.Decoder(Row)


class Spool:
    """Rows in the order in which they were added, one line of JSON each; 16 bytes of memory each.

    `numbers` are the rows' numbers in what was read, which a spool of a side does not have in
    order.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._ends = array("Q", [0])
        self.numbers = array("Q")

    def add(self, row: Row | bytes, number: int) -> None:
        encoded = row if isinstance(row, bytes) else msgspec.json.encode(row)
        self._file.seek(self._ends[-1])
        self._file.write(encoded + b"\n")
        self._ends.append(self._ends[-1] + len(encoded) + 1)
        self.numbers.append(number)

    def raw(self, index: int) -> bytes:
        """The row's line."""
        self._file.seek(self._ends[index])
        return self._file.read(self._ends[index + 1] - self._ends[index])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Row:
        return _decoder.decode(self.raw(index))

    def part(self) -> Part:
        """All of them."""
        return Part(self, range(len(self)))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        self._file.close()


class Part(Sequence[Row]):
    """Some of a spool's rows, in an order."""

    def __init__(self, spool: Spool, indices: Sequence[int]) -> None:
        self._spool = spool
        self.indices = indices

    @property
    def numbers(self) -> list[int]:
        """Each row's number in what was read."""
        return [self._spool.numbers[index] for index in self.indices]

    def where(self, keep: Sequence[bool]) -> Part:
        """The rows for which `keep` holds, in their order."""
        pairs = zip(self.indices, keep, strict=True)
        return Part(self._spool, [index for index, kept in pairs if kept])

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Part: ...
    def __getitem__(self, index: int | slice) -> Row | Part:
        if isinstance(index, slice):
            return Part(self._spool, self.indices[index])
        return self._spool[self.indices[index]]

    def __iter__(self) -> Iterator[Row]:
        return (self._spool[index] for index in self.indices)

    def __add__(self, other: Part) -> Part:
        """Both, of one spool."""
        return Part(self._spool, [*self.indices, *other.indices])
