"""All that a record holds, in segments and in the archive, without what was erased."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import structlog

from proxy.protocol import tombstones
from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.parquet import EXCHANGES, FEEDBACK, SCHEMAS, SHADOWS, Rows
from proxy.protocol.sealing import Keyring
from proxy.protocol.segments import Damage, Record, read_segment
from proxy.protocol.shadowed import Shadowed
from proxy.record import journal, markers
from proxy.record.archive import Archive

_BATCH = 512
"""Rows that are in memory at once; each may be a megabyte."""
_OPEN = 64
"""Files that are read at a time. Chosen: what is kept of an open one, some 0.1 MB, does not grow
with the record, and a bucket is still asked for several at once."""
_FOLDERS = pyarrow.dataset.partitioning(
    pa.schema({"date": pa.date32(), "domain": pa.string()}), flavor="hive"
)
"""What a file's path says of its rows, so that one of another day or domain is not opened."""

log = structlog.get_logger(__name__)


def _tell(path: Path, offset: int) -> None:
    log.warning("segment_damaged", segment=path.name, offset=offset)


class Shelf:
    """One machine's segments and the archive, for reading."""

    def __init__(
        self,
        directory: Path,
        archive: Archive,
        keyring: Keyring | None = None,
        on_damage: Damage = _tell,
    ) -> None:
        """`on_damage` is told of bytes of a segment that are no record."""
        self._on_damage = on_damage
        self.directory = directory
        self.archive = archive
        self.rows = Rows(keyring)
        self.keyring = keyring

    @cached_property
    def erased(self) -> frozenset[str]:
        """Ids of exchanges that were erased, here or elsewhere."""
        elsewhere = (self.archive.get(path) for path in self.archive.paths(tombstones.FOLDER))
        ids = {one.id for content in elsewhere for one in tombstones.decode(content)}
        return tombstones.erased(self.directory) | ids

    def records(self, path: Path) -> Iterator[Record]:
        """What a segment holds."""
        for record in read_segment(path, self._on_damage, self.keyring):
            about = record.id if isinstance(record, Exchange) else record.exchange
            if about not in self.erased:
                yield record

    def files(self, kind: str, since: float = 0.0) -> list[str]:
        """Paths of the archive's Parquet files of one kind that count, by date; of days that ended
        before `since` (seconds since the epoch) there are none among them."""
        stored = self.stored(kind, since)
        # In this order, so that each row is there once: markers.
        uncounted = markers.uncounted(stored, markers.read(self.archive))
        return [path for path in stored if path not in uncounted]

    def stored(self, kind: str, since: float = 0.0) -> list[str]:
        """The same with those that do not count, as they were joined: for who has to rewrite
        all."""
        job = journal.read(self.directory)
        first = f"{kind}/date={datetime.fromtimestamp(since, UTC):%Y-%m-%d}"
        return [
            path
            for path in self.archive.paths(kind)
            if path.startswith(f"{kind}/") and path >= first and journal.counts(path, job)
        ]

    def dataset(self, kind: str, since: float = 0.0) -> pa.dataset.Dataset:
        """The archive's rows of one kind, as PyArrow sees them; `since` as in `files`."""
        return self._dataset(kind, self.files(kind, since))

    def _datasets(self, kind: str, files: Sequence[str]) -> Iterator[pa.dataset.Dataset]:
        """These files, some at a time."""
        for start in range(0, len(files), _OPEN):
            yield self._dataset(kind, files[start : start + _OPEN])

    def _dataset(self, kind: str, files: Sequence[str]) -> pa.dataset.Dataset:
        filesystem, prefix = self.archive.reading()
        return pyarrow.dataset.dataset(
            [prefix + path for path in files],
            schema=SCHEMAS[kind],
            filesystem=filesystem,
            format="parquet",
            partitioning=_FOLDERS,
            partition_base_dir=prefix + kind,
        )

    def exchanges(self, since: float = 0.0) -> Iterator[Exchange]:
        """All exchanges from then on (seconds since the epoch): the archive's by date, then the
        segments', as they were written."""
        for batch in self._batches(EXCHANGES, "exchange", "started_at", since):
            for exchange in self.rows.exchanges(batch):
                if exchange.id not in self.erased:
                    yield exchange
        for path in self._segments(since):
            yield from (
                one
                for one in self.records(path)
                if isinstance(one, Exchange) and one.started_at >= since
            )

    def shadows(self, since: float = 0.0) -> Iterator[Shadowed]:
        """All shadows whose exchange was not erased, as `exchanges`."""
        for batch in self._batches(SHADOWS, "shadow", "started_at", since):
            for shadowed in self.rows.shadows(batch):
                if shadowed.exchange not in self.erased:
                    yield shadowed
        for path in self._segments(since):
            yield from (
                one
                for one in self.records(path)
                if isinstance(one, Shadowed) and one.started_at >= since
            )

    def feedback(self, since: float = 0.0) -> Iterator[Feedback]:
        """All feedback on what was not erased, as `exchanges`."""
        for batch in self._batches(FEEDBACK, "feedback", "given_at", since):
            for one in self.rows.feedback(batch):
                if one.exchange not in self.erased:
                    yield one
        for path in self._segments(since):
            yield from (
                one
                for one in self.records(path)
                if isinstance(one, Feedback) and one.given_at >= since
            )

    def _batches(self, kind: str, column: str, time: str, since: float) -> Iterator[pa.RecordBatch]:
        later = pc.field(time) >= datetime.fromtimestamp(since, UTC)
        for dataset in self._datasets(kind, self.files(kind, since)):
            yield from dataset.to_batches(
                columns=[column, "sealed"], filter=later if since else None, batch_size=_BATCH
            )

    def _segments(self, since: float) -> Iterator[Path]:
        """The segments that were written to then or later."""
        for path in journal.counting(self.directory):
            if path.stat().st_mtime >= since:
                yield path

    def find(self, id: str, tenant: str | None = None) -> Exchange | None:
        """The exchange with this id, or the last of the request with this id; of one tenant, if it
        is named. What is newest is looked at first, and of what is old its ids only."""
        for path in reversed(journal.counting(self.directory)):
            records = (one for one in self.records(path) if isinstance(one, Exchange))
            here = [one for one in records if id in (one.id, one.request_id)]
            if found := _last(here, tenant):
                return found
        named = (pc.field("id") == id) | (pc.field("request_id") == id)
        for dataset in self._datasets(EXCHANGES, self.files(EXCHANGES)[::-1]):
            there = [one for group in _holding(dataset, named) for one in self._read(group, named)]
            if found := _last(there, tenant):
                return found
        return None

    def _read(self, group: pa.dataset.Fragment, wanted: pc.Expression) -> Iterator[Exchange]:
        for batch in group.to_batches(
            columns=["exchange", "sealed"], filter=wanted, schema=SCHEMAS[EXCHANGES]
        ):
            for exchange in self.rows.exchanges(batch):
                if exchange.id not in self.erased:
                    yield exchange


def _holding(
    dataset: pa.dataset.Dataset, wanted: pc.Expression
) -> Iterator[pa.dataset.ParquetFileFragment]:
    """The row groups with rows that are wanted. PyArrow reads all columns that are asked for before
    it leaves rows out, so that those that tell are read alone first."""
    hits = dataset.to_table(columns=["__filename"], filter=wanted)
    names = set(hits.column("__filename").to_pylist())
    for file in dataset.get_fragments():
        if file.path in names:
            for group in file.split_by_row_group(wanted, SCHEMAS[EXCHANGES]):
                if group.to_table(SCHEMAS[EXCHANGES], columns=["id"], filter=wanted).num_rows:
                    yield group


def _last(found: Sequence[Exchange], tenant: str | None) -> Exchange | None:
    """The one that began last."""
    own = (one for one in found if tenant in (None, one.tenant))
    return max(own, key=lambda one: one.started_at, default=None)
