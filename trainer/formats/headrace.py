"""Our own rows, as datasets keep them: nothing is lost, source, licence and label included."""

from __future__ import annotations

from trainer.formats.base import decoded, encoded
from trainer.rows import Row


def read(line: bytes) -> Row:
    return decoded(line, Row)


def write(row: Row) -> bytes:
    return encoded(row)
