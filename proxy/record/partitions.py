"""Writes records into Parquet files, one for each date and domain, in little memory.

What waits for its file lies in a spool of Arrow streams, one after the other. No spool stays open,
and one Parquet file at a time is: of domains there may be more than of open files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from proxy.protocol.feedback import Feedback
from proxy.protocol.parquet import SCHEMAS, SUFFIX, Rows, partition
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed

ROWS = 4096
"""Rows of a row group, at most. Chosen: a search reads few columns of many rows."""
_BYTES = 24 * 1024 * 1024
"""Bytes of records that wait to be written, over all partitions; as rows they are some times that.
"""
_SPOOL = ".spool"
_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")
"""Chosen: a spool is written and read once, and should cost little of either."""


class Partitions:
    """Files `<directory>/exchanges/date=…/domain=…/<name>.parquet`. A context manager: they are
    whole when it is left without an error."""

    def __init__(
        self,
        directory: Path,
        name: str,
        rows: Rows,
        place: Callable[[Record], str] = partition,
    ) -> None:
        """`place`: the folder that a record belongs into; its first part is the kind."""
        self.written = 0
        self._directory = directory
        self._name = name
        self._rows = rows
        self._place = place
        self._waiting: dict[str, list[Record]] = {}
        self._bytes = 0
        self._places: set[str] = set()
        """Those that have a spool, and will have a file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush_all()
            for place in sorted(self._places):
                self._finish(place)

    def add(self, records: Iterable[Record]) -> None:
        """Write these records, sooner or later."""
        for record in records:
            place = self._place(record)
            waiting = self._waiting.setdefault(place, [])
            waiting.append(record)
            self._bytes += _size(record)
            if len(waiting) >= ROWS:
                self._flush(place)
            if self._bytes > _BYTES:
                self._flush_all()

    @property
    def files(self) -> list[str]:
        """Paths of the files, below the directory."""
        return [f"{place}/{self._name}{SUFFIX}" for place in sorted(self._places)]

    def _flush_all(self) -> None:
        for place in list(self._waiting):
            self._flush(place)
        self._bytes = 0

    def _flush(self, place: str) -> None:
        """Put what waits behind what the spool has."""
        records = self._waiting.pop(place)
        self._bytes -= sum(map(_size, records))
        self._places.add(place)
        spool = self._path(place, _SPOOL)
        spool.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        table = self._rows.table(records)
        with (
            spool.open("ab") as file,
            pa.ipc.new_stream(file, table.schema, options=_PACKED) as stream,
        ):
            stream.write_table(table)
        self.written += len(records)

    def _finish(self, place: str) -> None:
        """Make the Parquet file of a spool."""
        spool = self._path(place, _SPOOL)
        with writer(self._path(place, SUFFIX), _kind(place)) as parquet:
            for group in groups(_streams(spool)):
                parquet.write_table(group)
        spool.unlink()

    def _path(self, place: str, suffix: str) -> Path:
        return self._directory / place / f"{self._name}{suffix}"


def _kind(place: str) -> str:
    return place.partition("/")[0]


def groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in row groups that are as large as they may be."""
    waiting: list[pa.Table] = []
    for table in tables:
        rows = sum(one.num_rows for one in waiting) + table.num_rows
        if waiting and (rows > ROWS or sum(one.nbytes for one in waiting) > _BYTES):
            yield pa.concat_tables(waiting)
            waiting.clear()
        waiting.append(table)
    if waiting:
        yield pa.concat_tables(waiting)


def _streams(spool: Path) -> Iterator[pa.Table]:
    end = spool.stat().st_size
    with spool.open("rb") as file:
        while file.tell() < end:
            with pa.ipc.open_stream(file) as stream:
                yield stream.read_all()


def day_of(path: str) -> date:
    """The day in `…/date=2026-01-30/…`."""
    return date.fromisoformat(path.split("date=", 1)[1][:10])


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
