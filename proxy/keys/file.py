"""Keys in a JSON file: one that `headrace keys` writes, or a secret that Kubernetes mounts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from proxy.keys.base import Key, KeysUnavailable, the_one, until


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[Key] = []


class FileKeys:
    """Reads and writes the file. A change replaces it as a whole: nobody reads half of one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Key]:
        """See KeyStore."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File).keys
        except FileNotFoundError:
            raise KeysUnavailable(
                f"{self._path}: no such file; `headrace keys new` makes it"
            ) from None
        except OSError as error:
            raise KeysUnavailable(f"{self._path}: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise KeysUnavailable(f"{self._path}: no file of keys: {error}") from None

    def add(self, key: Key) -> None:
        """See KeyStore."""
        with self._changing():
            self._write([*(self.read() if self._path.exists() else []), key])

    def expire(self, prefix: str, at: datetime) -> Key:
        """See KeyStore."""
        with self._changing():
            keys = self.read()
            old = the_one(keys, prefix)
            ended = until(old, at)
            self._write([ended if key is old else key for key in keys])
        return ended

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time: two that read first would lose one of them."""
        try:
            with open(f"{self._path}.lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise KeysUnavailable(f"{self._path}: {error.strerror}; keys were not changed") from (
                error
            )

    def _write(self, keys: list[Key]) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        content = msgspec.json.format(msgspec.json.encode(_File(keys)), indent=2)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self._path)
