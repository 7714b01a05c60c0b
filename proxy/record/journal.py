"""What a compaction is at, on the disk: so that one that was interrupted loses and doubles nothing.

    writing   segments count, the job's Parquet files do not: they may be incomplete
    written   the job's Parquet files count, its segments do not: they are being deleted

The step from one to the other is a rename. One process at a time works on a record directory.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from proxy.errors import CannotStart
from proxy.protocol import atomic
from proxy.protocol.segments import segments

_NAME = "compaction.json"
_LOCK = "compaction.lock"
_MARK = "mark"


class Busy(CannotStart):
    """Another process compacts or erases in this directory."""


class Job(msgspec.Struct, frozen=True):
    """Segments that become Parquet files, all of which are named after the job."""

    id: str
    """Unlike any other's, here or on another machine: the first segment's name, and the directory's
    mark."""
    segments: list[str]
    """File names."""
    state: Literal["writing", "written"] = "writing"


def read(directory: Path) -> Job | None:
    """The job that is under way or was interrupted, if any."""
    try:
        return msgspec.json.decode((directory / _NAME).read_bytes(), type=Job)
    except FileNotFoundError:
        return None


def write(directory: Path, job: Job) -> None:
    """The job is at this now; lasting on return."""
    _write(directory / _NAME, msgspec.json.encode(job))


def forget(directory: Path) -> None:
    """The job is over."""
    (directory / _NAME).unlink(missing_ok=True)


def mark(directory: Path) -> str:
    """What the names of all files end in that come from this directory, behind `_`: 12 digits by
    chance, made by the first that asks. Not to be asked by two at once (`exclusive`)."""
    path = directory / _MARK
    if not path.exists():
        _write(path, secrets.token_hex(6).encode())
    return path.read_text()


def counting(directory: Path) -> list[Path]:
    """The segments that count, oldest first."""
    job = read(directory)
    gone = set(job.segments) if job is not None and job.state == "written" else set()
    return [path for path in segments(directory) if path.name not in gone]


def counts(path: str, job: Job | None) -> bool:
    """Whether a Parquet file of the archive counts while this job is under way."""
    return job is None or job.state == "written" or not path.endswith(f"/{job.id}.parquet")


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Nobody else compacts or erases meanwhile; raises Busy."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Busy(f"another process compacts or erases in {directory}") from error
    finally:
        os.close(lock)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; lasting on return, its name too."""
    atomic.write(path, content)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
