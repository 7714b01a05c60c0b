"""All that a record holds, in segments and in the archive, without what was erased."""

from __future__ import annotations

from collections.abc import Iterator
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
from proxy.record import journal
from proxy.record.archive import Archive

_BATCH = 512
"""Rows that are in memory at once; each may be a megabyte."""

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

    def files(self, kind: str) -> list[str]:
        """Paths of the archive's Parquet files of one kind that count, by date."""
        job = journal.read(self.directory)
        return [
            path
            for path in self.archive.paths(kind)
            if path.startswith(f"{kind}/") and journal.counts(path, job)
        ]

    def dataset(self, kind: str) -> pa.dataset.Dataset:
        """The archive's rows of one kind, as PyArrow sees them."""
        filesystem, prefix = self.archive.reading()
        paths = [prefix + path for path in self.files(kind)]
        return pyarrow.dataset.dataset(
            paths, schema=SCHEMAS[kind], filesystem=filesystem, format="parquet"
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
        columns = [column, "sealed"]
        yield from self.dataset(kind).to_batches(
            columns=columns, filter=later if since else None, batch_size=_BATCH
        )

    def _segments(self, since: float) -> Iterator[Path]:
        """The segments that were written to then or later."""
        for path in journal.counting(self.directory):
            if path.stat().st_mtime >= since:
                yield path

    def find(self, id: str) -> Exchange | None:
        """The exchange with this id, or of the request with this id."""
        for path in journal.counting(self.directory):
            for one in self.records(path):
                if isinstance(one, Exchange) and id in (one.id, one.request_id):
                    return one
        named = (pc.field("id") == id) | (pc.field("request_id") == id)
        dataset = self.dataset(EXCHANGES)
        for batch in dataset.to_batches(columns=["exchange", "sealed"], filter=named):
            for exchange in self.rows.exchanges(batch):
                if exchange.id not in self.erased:
                    return exchange
        return None
