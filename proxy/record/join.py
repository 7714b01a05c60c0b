"""Joins small files of the archive, so that there are few for each kind, date and domain.

A directory's compaction joins its own files, which it knows by their names, and nobody else's: so
several machines that have one archive never join the same file. Who rewrites files in place
(erasure, retention) may do so on any machine and at any time: what was rewritten after it was read
undoes the join. What other readers go by is told in `markers`.

Who is interrupted leaves nothing to undo: a join is told before its file is put, the file is whole,
and old ones are deleted by a later run, which goes on where the list says.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import structlog

from proxy.protocol.parquet import SCHEMAS, SUFFIX
from proxy.record import journal, markers
from proxy.record.archive import Archive, Gone, Listed
from proxy.record.markers import Join
from proxy.record.partitions import day_of, groups, writer
from proxy.record.shelf import Shelf

_GRACE = 45 * 60
"""Seconds for which old files stay, and undone ones. Chosen: longer than any query takes, and over
by the next of hourly runs."""
_LATE = 2 * 60 * 60
"""Seconds after which no more is expected of a day that is over, compacted every hour."""
_MANY = 8
"""Files of a day that is not over from which on they are joined. Chosen: some hours' worth."""
_LARGE = 64 * 1024 * 1024
"""Bytes of a file that is large enough. Chosen: some hundred row groups; and one such file is in
memory while it is read."""

log = structlog.get_logger(__name__)


class Joined(NamedTuple):
    """What a run joined."""

    files: int
    into: int


def join(shelf: Shelf, scratch: Path, now: float) -> Joined:
    """Join what is worth it, and go on with the joins of earlier runs. Nobody else may work in the
    directory (`journal.exclusive`); `scratch` is an empty folder.

    Raises ArchiveUnavailable, after which every row still counts once.
    """
    begun = time.monotonic()
    mark = journal.mark(shelf.directory)
    there = {one.path: one for kind in SCHEMAS for one in shelf.archive.listed(kind)}
    joins = _continued(shelf.archive, mark, scratch, there, now)
    bound = {path for one in joins for path in (one.file, *one.replaced)}
    free = [one for one in there.values() if _is_own(shelf, mark, one) and one.path not in bound]
    files = into = 0
    for folders in _by_day(free, now):
        at = now + time.monotonic() - begun
        fresh = [new for one in folders if (new := _written(shelf, mark, one, scratch, at))]
        joins = _put(shelf.archive, mark, joins, fresh, scratch)
        files += sum(len(one.replaced) for one in fresh)
        into += len(fresh)
    return Joined(files, into)


# ---------------------------------------------------------------- earlier runs


def _continued(
    archive: Archive, mark: str, scratch: Path, there: Mapping[str, Listed], now: float
) -> list[Join]:
    """Go on with the joins of earlier runs; those that are not over yet."""
    before = markers.of(archive, mark)
    steps = [_step(one, there, now) for one in before]
    after = [one for one, _ in steps if one is not None]
    if after != before:
        markers.write(archive, mark, after, scratch)
    for _, doomed in steps:
        for path in doomed:
            archive.delete(path)
    return after


def _step(join: Join, there: Mapping[str, Listed], now: float) -> tuple[Join | None, Iterable[str]]:
    """What a join is at next, None when it is over, and the files that go then."""
    if now - join.at < _GRACE:
        return join, ()
    if join.file not in there:
        # It was never put; or retention, erasure or we deleted it.
        return None, ()
    if join.state == "undone":
        return msgspec.structs.replace(join, at=now), [join.file]
    old = there.keys() & join.replaced.keys()
    if join.state == "joining" and not _unchanged(join, there):
        return msgspec.structs.replace(join, state="undone", at=now), ()
    if not old:
        return None, ()
    return msgspec.structs.replace(join, state="joined", at=now), old


def _unchanged(join: Join, there: Mapping[str, Listed]) -> bool:
    return all(
        path in there and there[path].version == version for path, version in join.replaced.items()
    )


# ---------------------------------------------------------------- what is joined


def _is_own(shelf: Shelf, mark: str, file: Listed) -> bool:
    """Whether it came from this directory: its name says so, or says nothing and the archive lies
    in the directory."""
    if not file.path.endswith(SUFFIX):
        return False
    _, _, owner = PurePosixPath(file.path).stem.partition("_")
    if owner:
        return owner == mark
    filesystem, prefix = shelf.archive.reading()
    is_local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    return is_local and Path(prefix).resolve().is_relative_to(shelf.directory.resolve())


def _by_day(files: Iterable[Listed], now: float) -> Iterator[list[list[Listed]]]:
    """The files to be joined, folder by folder, a day at a time."""
    over = datetime.fromtimestamp(now - _LATE, UTC).date()
    days: dict[date, dict[str, list[Listed]]] = {}
    for file in sorted(files):
        if file.size < _LARGE:
            folder, _, _ = file.path.rpartition("/")
            days.setdefault(day_of(file.path), {}).setdefault(folder, []).append(file)
    for day in sorted(days):
        least = 2 if day < over else _MANY
        chosen = (worth_it(folder, least) for folder in days[day].values())
        yield [sorted(one) for one in chosen if one]


def worth_it(files: Sequence[Listed], least: int) -> list[Listed]:
    """The smaller files of a folder, up to the largest that is no more than twice as large as all
    that are smaller; none of fewer than `least`.

    So a row is written again O(log n) times: its file has grown by half by then. Those that are
    left are each more than twice as large as all smaller ones: O(log n) files.
    """
    if len(files) < least:
        return []
    ordered = sorted(files, key=lambda one: one.size)
    total, count = ordered[0].size, 1
    for number, file in enumerate(ordered[1:], 2):
        if file.size <= 2 * total:
            count = number
        total += file.size
        if total >= _LARGE:
            break
    return ordered[:count] if count > 1 else []


# ---------------------------------------------------------------- joining


def _written(
    shelf: Shelf, mark: str, files: Sequence[Listed], scratch: Path, at: float
) -> Join | None:
    """Write what joins these files of a folder; None where some are not to be joined."""
    first = PurePosixPath(files[0].path)
    name = f"{first.stem.partition('-')[0]}-joined-{secrets.token_hex(4)}_{mark}{SUFFIX}"
    path = str(first.with_name(name))
    kind = first.parts[0]
    fresh = scratch / path
    fresh.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with writer(fresh, kind) as parquet:
            for group in groups(_tables(shelf.archive, kind, files)):
                parquet.write_table(group)
    except (_Unfit, Gone) as error:
        log.warning("files_not_joined", folder=str(first.parent), error=str(error))
        return None
    return Join(file=path, replaced={one.path: one.version for one in files}, at=at)


class _Unfit(Exception):
    """A file that this release cannot read whole."""


def _tables(archive: Archive, kind: str, files: Iterable[Listed]) -> Iterator[pa.Table]:
    """All rows; a file's bytes and some thousand rows are in memory."""
    for file in files:
        # Taken at once, as who rewrites it meanwhile would leave us with the half of either.
        content = pa.BufferReader(archive.get(file.path))
        try:
            source = pq.ParquetFile(content)
            for number in range(source.num_row_groups):
                yield _fitted(source.read_row_group(number), SCHEMAS[kind])
        except (pa.ArrowException, OSError) as error:
            raise _Unfit(f"{file.path}: {error}") from error


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with all columns, of which earlier releases had fewer; raises ArrowInvalid for rows of a
    later release, which would lose some."""
    for field in table.schema:
        if field.name not in schema.names or schema.field(field.name).type != field.type:
            raise pa.ArrowInvalid(f"another release wrote the column {field.name!r}")
    columns = {
        field.name: table[field.name]
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    }
    return pa.table(columns, schema=schema)


def _put(
    archive: Archive, mark: str, joins: Sequence[Join], fresh: Sequence[Join], scratch: Path
) -> list[Join]:
    """Tell the joins, then put their files; all joins there are then.

    Who rewrote an old one after it was read, and saw that there was no new one, is seen here.
    """
    if not fresh:
        return [*joins]
    markers.write(archive, mark, [*joins, *fresh], scratch)
    for one in fresh:
        archive.put(one.file, scratch / one.file)
        (scratch / one.file).unlink()
    day = f"date={day_of(fresh[0].file)}"
    there = {one.path: one for kind in SCHEMAS for one in archive.listed(f"{kind}/{day}")}
    told = [
        one if _unchanged(one, there) else msgspec.structs.replace(one, state="undone")
        for one in fresh
    ]
    if told != fresh:
        markers.write(archive, mark, [*joins, *told], scratch)
    return [*joins, *told]
