"""One run a domain at a time: a lock that says who holds it, and that ends with its holder.

The kernel drops the lock (flock) when its process ends, however it ends. What the file says is for
people, and counts only while the lock is held.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from trainer.errors import Locked

LOCK = "lock.json"


class Holder(msgspec.Struct, frozen=True):
    """Who has the lock."""

    pid: int
    host: str
    since: float
    """Seconds since the epoch."""

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory; raises Locked that says who holds it already."""
    directory.mkdir(parents=True, exist_ok=True)
    file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(file, directory)
        holder = Holder(os.getpid(), socket.gethostname(), time.time())
        os.ftruncate(file, 0)
        os.pwrite(file, msgspec.json.encode(holder), 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def _take(file: int, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = _read(directory) or "a process that has just begun"
        raise Locked(f"{directory.name} is being run by {who}; wait for it, or stop it") from None


def holder(directory: Path) -> Holder | None:
    """Who holds the lock, as far as can be told without taking it: of this host's processes only
    those that are alive."""
    found = _read(directory)
    if found is None or found.host != socket.gethostname():
        return found
    return found if Path(f"/proc/{found.pid}").exists() else None


def _read(directory: Path) -> Holder | None:
    try:
        return msgspec.json.decode((directory / LOCK).read_bytes(), type=Holder)
    except (OSError, ValueError):
        return None
