"""Files by path, in a directory, which are there whole or not at all.

A file that changes is replaced only by who has seen what it replaces (compare-and-swap), so that
of two writers one wins and the other is told. Paths are relative, with `/`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from proxy.protocol.adapter import AdapterError

_LOCK = ".lock"


class StoreError(AdapterError):
    """The files cannot be reached, read or written."""


class Swapped(StoreError):
    """Another writer was there first; the file holds what he wrote."""


class Held(NamedTuple):
    """A file as it was seen."""

    content: bytes
    tag: str
    """Changes with the content."""


class Store(Protocol):
    """Files by path; every method raises StoreError."""

    def read(self, path: str, limit: int) -> Held | None:
        """A small file, at most `limit` bytes; None when it is not there."""

    def paths(self, folder: str) -> list[str]:
        """The paths below a folder, sorted."""

    def create(self, path: str, content: bytes) -> None:
        """Write a file that is not there yet; raises Swapped when it is."""

    def swap(self, path: str, content: bytes, tag: str | None) -> None:
        """Replace the file that was seen with this tag (None: there was none); lasting on return.

        Raises Swapped when another one is there by now.
        """


class DirectoryStore:
    """A directory, on this machine or shared: its writers agree by a lock on the file `.lock`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def read(self, path: str, limit: int) -> Held | None:
        file = self._directory / path
        with _translated(file):
            try:
                with open(file, "rb", opener=_without_waiting) as opened:
                    content = opened.read(limit + 1)
            except FileNotFoundError:
                return None
        if len(content) > limit:
            raise StoreError(f"{file} has more than {limit} bytes; it is none of ours")
        return Held(content, hashlib.sha256(content).hexdigest())

    def paths(self, folder: str) -> list[str]:
        found = (path for path in (self._directory / folder).rglob("*") if path.is_file())
        named = (path.relative_to(self._directory).as_posix() for path in found)
        return sorted(path for path in named if not path.endswith(".part"))

    def create(self, path: str, content: bytes) -> None:
        target = self._directory / path
        with _translated(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = _written(target, content)
            try:
                os.link(part, target)
            except FileExistsError:
                raise Swapped(f"{target} is there already") from None
            finally:
                part.unlink()
            _sync(target.parent)

    def swap(self, path: str, content: bytes, tag: str | None) -> None:
        target = self._directory / path
        with _translated(target), self._locked():
            there = hashlib.sha256(target.read_bytes()).hexdigest() if target.exists() else None
            if there != tag:
                raise Swapped(f"{target} was changed meanwhile")
            part = _written(target, content)
            try:
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            _sync(target.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The kernel lets go of the lock of a process that died."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _without_waiting(path: str, flags: int) -> int:
    """Nobody may ever write to a pipe of this name."""
    return os.open(path, flags | os.O_NONBLOCK)


def _written(target: Path, content: bytes) -> Path:
    """The content, on the disk, under a name that nobody reads."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
