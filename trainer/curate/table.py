"""The rows that passed the filters, as columns: some 80 bytes of memory each, the rest on disk."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.curate.sketch import PERMUTATIONS, Sketch
from trainer.curate.spool import Spool

_COLUMNS = {
    "id": "Q",
    "spelt": "Q",
    "whole": "Q",
    "same": "Q",
    "group": "Q",
    "at": "d",
    "rank": "B",
    "tool": "Q",
    "library": "Q",
    "template": "Q",
}


class Table:
    """Columns of sketches, signatures in a file, and the rows in a spool; all in one order."""

    def __init__(self, folder: Path) -> None:
        self.rows = Spool(folder / "judged.jsonl")
        self._path = folder / "signatures.u32"
        self._signatures = self._path.open("wb")
        self._columns = {name: array(code) for name, code in _COLUMNS.items()}

    def add(self, row: bytes, sketch: Sketch, number: int) -> None:
        self.rows.add(row, number)
        self._signatures.write(sketch.signature)
        for name, column in self._columns.items():
            column.append(getattr(sketch, name))

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> NDArray[Any]:
        """(n,) what the sketches have by this name."""
        column = self._columns[name]
        return np.frombuffer(column, column.typecode) if column else np.empty(0, column.typecode)

    def signatures(self) -> NDArray[np.uint32]:
        """(n, PERMUTATIONS), read from disk as they are needed."""
        self._signatures.flush()
        if not self._path.stat().st_size:
            return np.empty((0, PERMUTATIONS), np.uint32)
        return np.memmap(self._path, np.uint32, "r").reshape(-1, PERMUTATIONS)

    def order(self) -> NDArray[np.int64]:
        """The rows from the best to the last: by who says it, then oldest first, then by id."""
        keys = (self.column("whole"), self.column("id"), self.column("at"), self.column("rank"))
        return np.lexsort(keys).astype(np.int64)

    def close(self) -> None:
        self.rows.close()
        self._signatures.close()
