"""Where Parquet files are kept: a directory, or a bucket of S3, Google Cloud or Azure.

A file is there whole or not at all, and is never changed, only replaced. Paths are relative, with
`/`. Buckets need the package obstore (extra `record`).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow.fs
from obstore.exceptions import BaseError
from obstore.fsspec import FsspecStore
from obstore.store import from_url

from proxy.errors import BadConfig, CannotStart
from proxy.record.settings import ArchiveSettings, RecordSettings

_CLIENT = {"timeout": "60s", "connect_timeout": "5s"}
_RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""A bucket that is away is left alone until the next run; nothing is lost meanwhile."""


class ArchiveUnavailable(CannotStart):
    """The archive cannot be reached or written; what was to be kept in it stays where it is."""


class Gone(ArchiveUnavailable):
    """There is no such file, or not any more."""


class Listed(NamedTuple):
    """A file as a list has it."""

    path: str
    size: int
    """Bytes."""
    version: str
    """Another one once the file was replaced."""


class Archive(Protocol):
    """Files by path."""

    def paths(self, prefix: str = "") -> list[str]:
        """The paths that begin with a folder, sorted."""

    def listed(self, prefix: str = "") -> list[Listed]:
        """The same, and what tells the files apart."""

    def put(self, path: str, file: Path) -> None:
        """Keep a copy of this file under the path, whole or not at all; lasting on return."""

    def get(self, path: str) -> bytes:
        """The content of a small file; raises Gone."""

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone is no error."""

    def reading(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """For PyArrow: a file system, and what stands before a path in it."""


def open_archive(settings: RecordSettings) -> Archive:
    """The archive that routes.yaml names; raises BadConfig for a URL that is none."""
    given = settings.archive or ArchiveSettings(url=str(settings.directory / "archive"))
    if "://" not in given.url:
        return DirectoryArchive(Path(given.url))
    try:
        return BucketArchive(given.url, given.options)
    except (BaseError, ValueError) as error:
        raise BadConfig(f"$.record.archive: {_first_line(error)}") from error


class DirectoryArchive:
    """A directory, for its owner only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def paths(self, prefix: str = "") -> list[str]:
        return [one.path for one in self.listed(prefix)]

    def listed(self, prefix: str = "") -> list[Listed]:
        return sorted(self._listed(prefix))

    def _listed(self, prefix: str) -> Iterator[Listed]:
        for path in (self._directory / prefix).rglob("*"):
            # Another process may delete it meanwhile.
            with suppress(FileNotFoundError):
                found = path.stat()
                if stat.S_ISREG(found.st_mode) and not path.name.startswith("."):
                    version = f"{found.st_mtime_ns}-{found.st_ino}-{found.st_size}"
                    name = path.relative_to(self._directory).as_posix()
                    yield Listed(name, found.st_size, version)

    def put(self, path: str, file: Path) -> None:
        with _translated():
            target = self._directory / path
            _make_private(target.parent)
            fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            _copy(file, fresh)
            fresh.replace(target)
            _sync(target.parent)

    def get(self, path: str) -> bytes:
        with _translated():
            return (self._directory / path).read_bytes()

    def delete(self, path: str) -> None:
        with _translated():
            (self._directory / path).unlink(missing_ok=True)

    def reading(self) -> tuple[pyarrow.fs.FileSystem, str]:
        return pyarrow.fs.LocalFileSystem(), f"{self._directory}/"


def _make_private(directory: Path) -> None:
    """Make a directory and those above it that are missing, for their owner only."""
    if not directory.exists():
        _make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _copy(source: Path, target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with source.open("rb") as read, open(os.open(target, flags, 0o600), "wb") as written:
        while block := read.read(1024 * 1024):
            written.write(block)
        written.flush()
        os.fsync(written.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BucketArchive:
    """A prefix of a bucket."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        client: dict[str, Any] = dict(_CLIENT)
        if options.get("endpoint", "").startswith("http://"):
            client["allow_http"] = True
        config: Any = options
        self._store: Any = from_url(
            url,
            config=config,
            client_options=client,
            retry_config=_RETRIES,
        )
        protocol, _, rest = url.partition("://")
        self._prefix = rest.rstrip("/")
        self._filesystem = FsspecStore(
            protocol,
            config=config,
            client_options=client,
            retry_config=_RETRIES,
        )

    def paths(self, prefix: str = "") -> list[str]:
        return [one.path for one in self.listed(prefix)]

    def listed(self, prefix: str = "") -> list[Listed]:
        with _translated():
            pages = self._store.list(prefix or None)
            return sorted(_told(meta) for page in pages for meta in page)

    def put(self, path: str, file: Path) -> None:
        with _translated():
            self._store.put(path, file)

    def get(self, path: str) -> bytes:
        with _translated():
            return bytes(self._store.get(path).bytes())

    def delete(self, path: str) -> None:
        with _translated(), suppress(FileNotFoundError):
            self._store.delete(path)

    def reading(self) -> tuple[pyarrow.fs.FileSystem, str]:
        handler = pyarrow.fs.FSSpecHandler(self._filesystem)
        return pyarrow.fs.PyFileSystem(handler), f"{self._prefix}/"


def _told(meta: dict[str, Any]) -> Listed:
    version = f"{meta['e_tag']}-{meta['last_modified'].isoformat()}-{meta['size']}"
    return Listed(meta["path"], meta["size"], version)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Gone(_first_line(error)) from error
    except (BaseError, OSError) as error:
        raise ArchiveUnavailable(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
