"""Segments become Parquet files, small files are joined, and what is too old is deleted.

Run it as often as you like (cron, or `--every`): each run takes the segments that are complete, and
a run that is interrupted is undone or finished by the next one. Several proxies may have one
archive: each compacts its own segments, under names that no other has.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from proxy.protocol.feedback import Feedback
from proxy.protocol.parquet import FEEDBACK, SCHEMAS
from proxy.protocol.segments import Record, completed
from proxy.record import journal
from proxy.record.join import join
from proxy.record.journal import Job
from proxy.record.partitions import Partitions, day_of
from proxy.record.shelf import Shelf

_JOB_BYTES = 512 * 1024 * 1024
"""Size of segments that become Parquet at once. Chosen: fewer and larger files, and what an
interruption costs is some minutes' work."""
_JOB_FILES = 256
"""Segments of a job; each is open meanwhile."""
_DAY = 24 * 60 * 60


class Retention(msgspec.Struct, frozen=True):
    """How many days records are kept; None is for ever."""

    days: int | None = None
    tenants: Mapping[str, int] = {}

    def cutoff(self, tenant: str, now: float) -> float:
        """What began before this (seconds since the epoch) is deleted."""
        days = self.tenants.get(tenant, self.days)
        return float("-inf") if days is None else now - days * _DAY

    @property
    def longest(self) -> int | None:
        """Days after which nothing is left of anybody."""
        if self.days is None:
            return None
        return max([self.days, *self.tenants.values()])

    @property
    def shortest(self) -> int | None:
        """Days before which everything is there."""
        days = [*self.tenants.values(), *([] if self.days is None else [self.days])]
        return min(days, default=None)


class Report(msgspec.Struct):
    """What a run did."""

    segments: int = 0
    records: int = 0
    files: int = 0
    expired: int = 0
    """Records that were too old, in segments and in the archive."""
    waiting: int = 0
    """Segments that are still being written."""
    joined: int = 0
    """Files of the archive that were joined."""
    into: int = 0
    """Files that they were joined into."""


def compact(shelf: Shelf, retention: Retention, now: float | None = None) -> Report:
    """Compact what is complete, delete what is too old, and join small files.

    Raises ArchiveUnavailable, after which all is as it was, and journal.Busy.
    """
    report = Report()
    now = time.time() if now is None else now
    with journal.exclusive(shelf.directory):
        recover(shelf)
        while _compact_some(shelf, retention, now, report):
            pass
        expire(shelf, retention, now, report)
        with _scratch(shelf.directory) as scratch:
            report.joined, report.into = join(shelf, scratch, now)
    return report


def recover(shelf: Shelf) -> None:
    """Undo or finish a job that was interrupted."""
    job = journal.read(shelf.directory)
    if job is None:
        return
    if job.state == "written":
        _finish(shelf, job)
        return
    for path in shelf.archive.paths():
        if not journal.counts(path, job):
            shelf.archive.delete(path)
    journal.forget(shelf.directory)


def _compact_some(shelf: Shelf, retention: Retention, now: float, report: Report) -> bool:
    """Compact one job's worth of segments; whether there may be more."""
    with ExitStack() as locks:
        taken = _taken(shelf.directory, locks, report)
        if not taken:
            return False
        id = f"{taken[0].stem}_{journal.mark(shelf.directory)}"
        job = Job(id, [path.name for path in taken])
        journal.write(shelf.directory, job)
        with _scratch(shelf.directory) as scratch:
            parts = Partitions(scratch, job.id, shelf.rows)
            with parts:
                for path in taken:
                    parts.add(_young(shelf.records(path), retention, now, report))
            for file in parts.files:
                shelf.archive.put(file, scratch / file)
        job = Job(job.id, job.segments, "written")
        journal.write(shelf.directory, job)
        _finish(shelf, job)
        report.segments += len(taken)
        report.records += parts.written
        report.files += len(parts.files)
    return True


def _taken(directory: Path, locks: ExitStack, report: Report) -> list[Path]:
    """Complete segments, locked, up to a job's size."""
    taken: list[Path] = []
    size = report.waiting = 0
    for path in journal.counting(directory):
        if size >= _JOB_BYTES or len(taken) >= _JOB_FILES:
            break
        if locks.enter_context(completed(path)):
            taken.append(path)
            size += path.stat().st_size
        else:
            report.waiting += 1
    return taken


def _young(
    records: Iterator[Record], retention: Retention, now: float, report: Report
) -> Iterator[Record]:
    for record in records:
        at = record.given_at if isinstance(record, Feedback) else record.started_at
        if at < retention.cutoff(record.tenant, now):
            report.expired += 1
        else:
            yield record


def _finish(shelf: Shelf, job: Job) -> None:
    for name in job.segments:
        (shelf.directory / name).unlink(missing_ok=True)
    journal.forget(shelf.directory)


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, and so is what an interrupted run left."""
    place = directory / ".compacting"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


# ---------------------------------------------------------------- retention


def expire(shelf: Shelf, retention: Retention, now: float, report: Report) -> None:
    """Delete from the archive what is too old; whole files by their date where that is enough."""
    if retention.shortest is None:
        return
    today = datetime.fromtimestamp(now, UTC).date()
    for kind in SCHEMAS:
        counting = set(shelf.files(kind))
        for path in shelf.stored(kind):
            age = (today - day_of(path)).days
            went = 0
            if retention.longest is not None and age > retention.longest:
                went = keep_rows(shelf, path, pc.scalar(False))
            elif age >= retention.shortest:
                went = _expire_rows(shelf, path, kind, retention, now)
            report.expired += went if path in counting else 0


def _expire_rows(shelf: Shelf, path: str, kind: str, retention: Retention, now: float) -> int:
    column = "given_at" if kind == FEEDBACK else "started_at"
    young = pc.field(column) >= pc.scalar(_moment(retention.cutoff("", now)))
    for tenant in retention.tenants:
        is_tenant = pc.field("tenant") == tenant
        own = pc.field(column) >= pc.scalar(_moment(retention.cutoff(tenant, now)))
        young = (is_tenant & own) | (~is_tenant & young)
    return keep_rows(shelf, path, young)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(seconds, 0.0), UTC)


def keep_rows(shelf: Shelf, path: str, kept: pc.Expression) -> int:
    """Rewrite a file of the archive with only the rows for which `kept` holds; how many went."""
    try:
        return _keep_rows(shelf, path, kept)
    except FileNotFoundError:
        # Another machine deleted it meanwhile.
        return 0


def _keep_rows(shelf: Shelf, path: str, kept: pc.Expression) -> int:
    filesystem, prefix = shelf.archive.reading()
    source = pyarrow.dataset.dataset(prefix + path, filesystem=filesystem, format="parquet")
    before, after = source.count_rows(), source.count_rows(filter=kept)
    if after == before:
        return 0
    if after == 0:
        shelf.archive.delete(path)
        return int(before)
    with tempfile.TemporaryDirectory(dir=shelf.directory, prefix=".rewriting-") as scratch:
        fresh = Path(scratch) / "rows.parquet"
        # As it was written: another release's columns stay.
        with pq.ParquetWriter(fresh, source.schema, compression="zstd") as target:
            for batch in source.to_batches(filter=kept, batch_size=4096):
                if batch.num_rows:
                    target.write_batch(batch)
        shelf.archive.put(path, fresh)
    return int(before - after)
