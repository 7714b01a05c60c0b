"""Erases exchanges with their feedback and shadows, and leaves tombstones.

Tombstones come first: from then on no reader sees what they name, even if the rest is interrupted;
running it again finishes it. Then segments and Parquet files are written anew without them.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from proxy.protocol import tombstones
from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.parquet import EXCHANGES, FEEDBACK, SHADOWS
from proxy.protocol.segments import (
    Encoder,
    Record,
    completed,
    read_segment,
    segments,
    want_closed,
)
from proxy.protocol.shadowed import Shadowed
from proxy.protocol.tombstones import Reason, Tombstone
from proxy.record import journal
from proxy.record.compact import keep_rows, recover
from proxy.record.shelf import Shelf

_POLL = 0.1
_FRAMES = 256


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased: what all given fields fit."""

    caller: str | None = None
    tenant: str | None = None
    conversation: str | None = None
    matching: str | None = None
    """A regular expression, found anywhere in the record's JSON."""

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("nothing says what is to be erased")

    @property
    def reasons(self) -> list[Reason]:
        """The fields that are given."""
        named: list[Reason] = ["caller", "tenant", "conversation", "matching"]
        return [name for name in named if getattr(self, name) is not None]

    def fits(self, record: Record) -> bool:
        """Whether the choice is this record."""
        plain = ("caller", "tenant", "conversation")
        if any(getattr(self, n) not in (None, getattr(record, n)) for n in plain):
            return False
        if self.matching is None:
            return True
        return re.search(self.matching, msgspec.json.encode(record).decode()) is not None

    @property
    def expression(self) -> pc.Expression:
        """The same for rows, but for `matching`."""
        fits = pc.scalar(True)
        for name in ("caller", "tenant", "conversation"):
            if getattr(self, name) is not None:
                fits = fits & (pc.field(name) == getattr(self, name))
        return fits


class Report(msgspec.Struct):
    """What an erasure did."""

    exchanges: int = 0
    feedback: int = 0
    shadows: int = 0
    unfinished: int = 0
    """Segments that a proxy still writes: what is erased of them is hidden, and goes with the next
    run."""


def erase(shelf: Shelf, choice: Choice, *, patience: float = 15.0) -> Report:
    """Erase what is chosen; waits up to `patience` seconds for proxies to close their segments.

    Raises ArchiveUnavailable and journal.Busy; run it again then.
    """
    with journal.exclusive(shelf.directory):
        recover(shelf)
        _wait_until_closed(shelf.directory, patience)
        chosen = {row.id: row for row in _chosen(shelf, choice)}
        _bury(shelf, choice, chosen.values())
        report = Report(exchanges=len(chosen))
        _rewrite_segments(shelf, _doomed(choice, chosen), report)
        _rewrite_archive(shelf, choice, chosen, report)
    return report


def _wait_until_closed(directory: Path, patience: float) -> None:
    want_closed(directory)
    until = time.monotonic() + patience
    while time.monotonic() < until and any(_is_open(path) for path in segments(directory)):
        time.sleep(_POLL)


def _is_open(path: Path) -> bool:
    with completed(path) as is_complete:
        return not is_complete and path.exists()


# ---------------------------------------------------------------- choosing


class _Chosen(NamedTuple):
    id: str
    tenant: str
    request_id: str


def _chosen(shelf: Shelf, choice: Choice) -> Iterator[_Chosen]:
    for path in segments(shelf.directory):
        for one in read_segment(path, keyring=shelf.keyring):
            if isinstance(one, Exchange) and choice.fits(one):
                yield _Chosen(one.id, one.tenant, one.request_id)
    columns = ["id", "tenant", "request_id", "exchange", "sealed"]
    needed = columns if choice.matching else columns[:3]
    dataset = shelf.dataset(EXCHANGES)
    for batch in dataset.to_batches(columns=needed, filter=choice.expression, batch_size=512):
        yield from _matching(shelf, batch, choice)


def _matching(shelf: Shelf, batch: pa.RecordBatch, choice: Choice) -> Iterator[_Chosen]:
    columns = (batch.column(name).to_pylist() for name in ("id", "tenant", "request_id"))
    rows = map(_Chosen, *columns)
    if choice.matching is None:
        yield from rows
        return
    contents = shelf.rows.contents(batch, "exchange")
    for row, content in zip(rows, contents, strict=True):
        if re.search(choice.matching, content.decode()):
            yield row


def _bury(shelf: Shelf, choice: Choice, chosen: Collection[_Chosen]) -> None:
    """Leave the tombstones, here and in the archive."""
    if not chosen:
        return
    now = time.time()
    content = tombstones.encode(
        Tombstone(id=one.id, tenant=one.tenant, erased_at=now, reasons=choice.reasons)
        for one in chosen
    )
    folder = shelf.directory / tombstones.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    path = folder / f"{stamp}-{secrets.token_hex(4)}{tombstones.SUFFIX}"
    _write(path, [content])
    shelf.archive.put(f"{tombstones.FOLDER}/{path.name}", path)


# ---------------------------------------------------------------- removing


def _doomed(choice: Choice, chosen: Mapping[str, _Chosen]) -> Callable[[Record], bool]:
    judged = {(one.tenant, id) for one in chosen.values() for id in (one.id, one.request_id)}

    def is_doomed(record: Record) -> bool:
        if isinstance(record, Exchange):
            return record.id in chosen
        return (record.tenant, record.exchange) in judged or choice.fits(record)

    return is_doomed


def _rewrite_segments(shelf: Shelf, doomed: Callable[[Record], bool], report: Report) -> None:
    for path in segments(shelf.directory):
        with completed(path) as is_complete:
            if is_complete:
                _rewrite_segment(shelf, path, doomed, report)
            elif any(map(doomed, read_segment(path, keyring=shelf.keyring))):
                report.unfinished += 1


def _rewrite_segment(
    shelf: Shelf, path: Path, doomed: Callable[[Record], bool], report: Report
) -> None:
    """Write a segment anew without what is doomed, and count it."""
    went = [record for record in _records(shelf, path) if doomed(record)]
    if not went:
        return
    kept = (record for record in _records(shelf, path) if not doomed(record))
    fresh = path.with_name(f".{path.name}.rewritten")
    _write(fresh, _frames(shelf, kept))
    if fresh.stat().st_size:
        fresh.replace(path)
    else:
        fresh.unlink()
        path.unlink()
    report.feedback += sum(isinstance(record, Feedback) for record in went)
    report.shadows += sum(isinstance(record, Shadowed) for record in went)


def _records(shelf: Shelf, path: Path) -> Iterator[Record]:
    return read_segment(path, keyring=shelf.keyring)


def _frames(shelf: Shelf, records: Iterator[Record]) -> Iterator[bytes]:
    encoder = Encoder(shelf.keyring)
    for record in records:
        yield encoder.encode([record])


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())


def _rewrite_archive(
    shelf: Shelf, choice: Choice, chosen: Mapping[str, _Chosen], report: Report
) -> None:
    ids = pa.array(sorted(chosen), pa.string())
    for path in _stored(shelf, EXCHANGES):
        keep_rows(shelf, path, ~pc.field("id").isin(ids))
    is_doomed = _doomed(choice, chosen)
    report.feedback += _remove(shelf, FEEDBACK, is_doomed)
    report.shadows += _remove(shelf, SHADOWS, is_doomed)


def _stored(shelf: Shelf, kind: str) -> Iterator[str]:
    """All files of a kind, and those that are put until the last of them was rewritten: another
    machine may join what it read before."""
    done: set[str] = set()
    while fresh := [path for path in shelf.stored(kind) if path not in done]:
        yield from fresh
        done.update(fresh)


def _remove(shelf: Shelf, kind: str, is_doomed: Callable[[Record], bool]) -> int:
    """Rewrite the files of feedback or of shadows without what is doomed; how much that was."""
    counting = set(shelf.files(kind))
    count = 0
    for path in _stored(shelf, kind):
        # Another machine may delete it meanwhile.
        with suppress(FileNotFoundError):
            found = _feedback(shelf, path) if kind == FEEDBACK else _shadows(shelf, path)
            doomed = pa.array([one.id for one in found if is_doomed(one)], pa.string())
            went = keep_rows(shelf, path, ~pc.field("id").isin(doomed))
            count += went if path in counting else 0
    return count


def _feedback(shelf: Shelf, path: str) -> Iterator[Feedback]:
    for batch in _batches(shelf, path, ["feedback", "sealed"]):
        yield from shelf.rows.feedback(batch)


def _shadows(shelf: Shelf, path: str) -> Iterator[Shadowed]:
    for batch in _batches(shelf, path, ["shadow", "sealed"]):
        yield from shelf.rows.shadows(batch)


def _batches(shelf: Shelf, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    filesystem, prefix = shelf.archive.reading()
    source = pa.dataset.dataset(prefix + path, filesystem=filesystem, format="parquet")
    yield from source.to_batches(columns=columns, batch_size=512)
