"""Writes records into Parquet files, one for each date and domain, in little memory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.parquet as pq

from proxy.protocol.feedback import Feedback
from proxy.protocol.parquet import SCHEMAS, SUFFIX, Rows, partition
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed

_ROWS = 4096
"""Rows of a row group, at most. Chosen: a search reads few columns of many rows."""
_BYTES = 24 * 1024 * 1024
"""Bytes of records that wait to be written, over all partitions; as rows they are some times that.
"""


class Partitions:
    """Files `<directory>/exchanges/date=…/domain=…/<name>.parquet`. A context manager: they are
    whole when it is left without an error."""

    def __init__(self, directory: Path, name: str, rows: Rows) -> None:
        self.written = 0
        self._directory = directory
        self._name = name
        self._rows = rows
        self._waiting: dict[str, list[Record]] = {}
        self._bytes = 0
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is None:
                self._flush_all()

    def add(self, records: Iterable[Record]) -> None:
        """Write these records, sooner or later."""
        for record in records:
            place = partition(record)
            waiting = self._waiting.setdefault(place, [])
            waiting.append(record)
            self._bytes += _size(record)
            if len(waiting) >= _ROWS:
                self._flush(place)
            if self._bytes > _BYTES:
                self._flush_all()

    @property
    def files(self) -> list[str]:
        """Paths of the files, below the directory."""
        return [f"{place}/{self._name}{SUFFIX}" for place in sorted(self._writers)]

    def _flush_all(self) -> None:
        for place in list(self._waiting):
            self._flush(place)
        self._bytes = 0

    def _flush(self, place: str) -> None:
        records = self._waiting.pop(place)
        self._bytes -= sum(map(_size, records))
        self._writer(place).write_table(self._rows.table(records))
        self.written += len(records)

    def _writer(self, place: str) -> pq.ParquetWriter:
        if place not in self._writers:
            path = self._directory / place / f"{self._name}{SUFFIX}"
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            kind = place.partition("/")[0]
            self._writers[place] = self._stack.enter_context(writer(path, kind))
        return self._writers[place]


def writer(path: Path, kind: str) -> pq.ParquetWriter:
    """A new Parquet file of one kind, open for writing."""
    return pq.ParquetWriter(path, SCHEMAS[kind], compression="zstd")


def _size(record: Record) -> int:
    """About how many bytes a record has."""
    if isinstance(record, Feedback):
        return 1024
    if isinstance(record, Shadowed):
        return 1024 + len(record.attempt.answer.text)
    said = sum(len(attempt.answer.text) for attempt in record.attempts)
    return 1024 + len(bytes(record.request)) + said
