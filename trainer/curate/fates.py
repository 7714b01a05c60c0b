"""What became of every row, kept in little memory while a build runs and written at its end."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec

from trainer.dataset import Fate
from trainer.rows import Row

_decoder = msgspec.json.Decoder(Fate)


class Fates:
    """One for each row that is read, by its number: 10 bytes of memory each, the rest on disk."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._known: list[tuple[str, str]] = [("", "")]
        self._codes: dict[tuple[str, str], int] = {("", ""): 0}
        self._later = array("H")
        self._like = array("Q")

    def add(self, row: Row, step: str = "", reason: str = "", detail: str = "") -> int:
        """A row was read, and where it fell among the filters; returns its number."""
        fate = Fate(row.id, row.source, row.exchange, step, reason, detail)
        self._file.write(msgspec.json.encode(fate) + b"\n")
        self._later.append(0)
        self._like.append(0)
        return len(self._later) - 1

    def settle(self, numbers: Iterable[int], step: str, reason: str = "") -> None:
        """These fell, or are on a side; said twice, the last holds."""
        code = self._codes.setdefault((step, reason), len(self._known))
        if code == len(self._known):
            self._known.append((step, reason))
        for number in numbers:
            self._later[number] = code

    def liken(self, number: int, other: int) -> None:
        """The row fell because one with the id `other` is like it."""
        self._like[number] = other

    def write(self, path: Path) -> None:
        self._file.seek(0)
        with path.open("wb") as out:
            for line, code, like in zip(self._file, self._later, self._like, strict=True):
                if not code:
                    out.write(line)
                    continue
                step, reason = self._known[code]
                detail = f"like {like:016x}" if like else ""
                settled = msgspec.structs.replace(
                    _decoder.decode(line), step=step, reason=reason, detail=detail
                )
                out.write(msgspec.json.encode(settled) + b"\n")

    def close(self) -> None:
        self._file.close()
