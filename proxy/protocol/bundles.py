"""Where adapter bundles are kept for good: each written once, whole, and never changed.

    a directory              a bucket
    ├── geo-v7/…             ├── bundles/geo-v7.json     Index: file → hash and size; put last
    ├── geo-v8/…             ├── bundles/geo-v8.json
    ├── champions.json       ├── blobs/<sha256>          each content once
    └── .history/            ├── champions.json
                             └── .history/

A directory is what proxies and engines read as it is; a bundle appears in it by a rename. In a
bucket it appears with its Index, which is created and never replaced: of two writers of one id one
wins, and what the other put stays without a name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec

from proxy.protocol import adapter
from proxy.protocol.adapter import (
    ADAPTER_ID,
    FILE_NAME,
    MANIFEST,
    Adapter,
    AdapterError,
    Manifest,
)
from proxy.protocol.signature import SIGNATURE, Trusted
from proxy.protocol.store import DirectoryStore, Store, StoreError, Swapped

if TYPE_CHECKING:
    from proxy.protocol.bucket import BucketStore

FOLDER, BLOBS = "bundles", "blobs"
VERSION = 1
_INDEX_LIMIT = 1024 * 1024
_FILE_LIMIT = 64 * 1024 * 1024
_MOST_FILES = 64
_LARGEST = 32 * 1024**3
"""Bytes of a bundle, at most. Chosen: some ten times the largest adapter of a 70B model."""

_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class BundleTaken(AdapterError):
    """The id is another bundle's: bundles do not change."""


class File(msgspec.Struct, frozen=True):
    """A file of a bundle."""

    sha256: _Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]
    """Bytes."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """All files of a bundle, manifest and signature included."""

    version: int = VERSION
    files: dict[str, File]

    def __post_init__(self) -> None:
        if self.version > VERSION:
            raise AdapterError(f"a newer release wrote it (version {self.version}); upgrade")
        if len(self.files) > _MOST_FILES or sum(f.size for f in self.files.values()) > _LARGEST:
            raise AdapterError(f"more than {_MOST_FILES} files or {_LARGEST} bytes are no bundle")
        for name in self.files:
            if not FILE_NAME.fullmatch(name):
                raise AdapterError(f"{name!r} is no file of a bundle")


class Bundles(Protocol):
    """Bundles by id; every method raises AdapterError."""

    store: Store
    """Beside them: the champion file, its history, marks."""

    def ids(self) -> list[str]:
        """All ids, sorted."""

    def manifest(self, id: str) -> Manifest:
        """What a bundle says of itself."""

    def file(self, id: str, name: str) -> bytes | None:
        """One of its small files, at most 64 MiB; None where it has none of that name."""

    def check(self, id: str) -> None:
        """Raises AdapterError unless the bundle is there, whole as far as can be told here."""

    def put(self, bundle: Path) -> str:
        """Keep a copy of a whole bundle; its id. The same one again is no error; another one of its
        id raises BundleTaken."""

    def get(self, id: str, directory: Path, trusted: Trusted | None = None) -> Path:
        """The bundle `directory/id`, copied there unless it is there, and found whole."""


def open_bundles(where: str | Path, options: Mapping[str, str] | None = None) -> Bundles:
    """A directory, or a bucket by its URL. Raises StoreError, and ImportError where the package
    obstore is missing."""
    if "://" not in str(where):
        return DirectoryBundles(Path(where))
    from proxy.protocol.bucket import BucketStore

    return BucketBundles(BucketStore(str(where), options))


def index(bundle: Path) -> Index:
    """The files of a bundle on disk."""
    names = [*adapter.files(bundle), MANIFEST]
    names += [SIGNATURE] if (bundle / SIGNATURE).exists() else []
    return Index(
        files={
            name: File(adapter.hash_file(bundle / name), (bundle / name).stat().st_size)
            for name in sorted(names)
        }
    )


class DirectoryBundles:
    """A directory of bundles."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.store: Store = DirectoryStore(directory)

    def ids(self) -> list[str]:
        """See Bundles."""
        found = (path.parent.name for path in self._directory.glob(f"*/{MANIFEST}"))
        return sorted(id for id in found if ADAPTER_ID.fullmatch(id))

    def manifest(self, id: str) -> Manifest:
        """See Bundles."""
        return adapter.read_manifest(self._directory / _named(id))

    def file(self, id: str, name: str) -> bytes | None:
        """See Bundles."""
        self.manifest(id)
        path = self._directory / id / name
        return adapter.read_file(path) if os.path.lexists(path) else None

    def check(self, id: str) -> None:
        """See Bundles."""
        _require_id(adapter.read(self._directory / _named(id)), id)

    def put(self, bundle: Path) -> str:
        """See Bundles."""
        id = adapter.read(bundle).id
        target = self._directory / id
        if bundle.resolve() != target.resolve():
            with _staged(target) as staged:
                for name in index(bundle).files:
                    shutil.copyfile(bundle / name, staged / name)
                _install(staged, target)
        return id

    def get(self, id: str, directory: Path, trusted: Trusted | None = None) -> Path:
        """See Bundles."""
        source, target = self._directory / _named(id), directory / id
        _require_id(adapter.read(source, trusted), id)
        DirectoryBundles(directory).put(source)
        return target


class BucketBundles:
    """A prefix of a bucket."""

    def __init__(self, store: BucketStore) -> None:
        self._bucket = store
        self.store: Store = store

    def ids(self) -> list[str]:
        """See Bundles."""
        names = (path.removeprefix(f"{FOLDER}/") for path in self._bucket.paths(FOLDER))
        found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted(id for id in found if ADAPTER_ID.fullmatch(id))

    def index(self, id: str) -> Index:
        """Its files."""
        path = f"{FOLDER}/{_named(id)}.json"
        held = self._bucket.read(path, _INDEX_LIMIT)
        if held is None:
            raise AdapterError(f"{self._bucket} has no bundle {id!r}")
        try:
            return msgspec.json.decode(held.content, type=Index)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AdapterError(f"{self._bucket}/{path}: {error}") from error

    def manifest(self, id: str) -> Manifest:
        """See Bundles."""
        try:
            return msgspec.json.decode(self.file(id, MANIFEST) or b"", type=Manifest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AdapterError(f"{self._bucket}: the manifest of {id}: {error}") from error

    def file(self, id: str, name: str) -> bytes | None:
        """See Bundles."""
        file = self.index(id).files.get(name)
        if file is None:
            return None
        held = self._bucket.read(f"{BLOBS}/{file.sha256}", _FILE_LIMIT)
        if held is None or adapter.sha256(held.content) != file.sha256:
            raise self._spoilt(id, name, file)
        return held.content

    def check(self, id: str) -> None:
        """See Bundles. What is behind the names was hashed as it came, and is as it is copied."""
        self.manifest(id)

    def put(self, bundle: Path) -> str:
        """See Bundles."""
        id, files = adapter.read(bundle).id, index(bundle)
        for name, file in files.files.items():
            self._bucket.keep(f"{BLOBS}/{file.sha256}", bundle / name)
        try:
            self._bucket.create(f"{FOLDER}/{id}.json", msgspec.json.encode(files))
        except Swapped:
            _require_same(f"{self._bucket} has", id, self.index(id), files)
        return id

    def get(self, id: str, directory: Path, trusted: Trusted | None = None) -> Path:
        """See Bundles."""
        files, target = self.index(id), directory / id
        if target.exists():
            _require_same(f"{directory} has", id, index(target), files)
            adapter.read(target, trusted)
            return target
        with _staged(target) as staged:
            for name, file in files.files.items():
                self._fetch(id, name, file, staged / name)
            _require_id(adapter.read(staged, trusted), id)
            _install(staged, target)
        return target

    def _fetch(self, id: str, name: str, file: File, target: Path) -> None:
        if self._bucket.fetch(f"{BLOBS}/{file.sha256}", target, file.size) != file.sha256:
            raise self._spoilt(id, name, file)

    def _spoilt(self, id: str, name: str, file: File) -> AdapterError:
        return AdapterError(
            f"{self._bucket}/{BLOBS}/{file.sha256} is not the file {name} of {id} any more;"
            " remove it, and put the bundle again"
        )


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A directory under a name that nobody reads, for what is to become `target`."""
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        staged.mkdir(parents=True)
        yield staged
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _install(staged: Path, target: Path) -> None:
    """Give the bundle its name; where another writer was faster, his must be the same."""
    for file in (*staged.iterdir(), staged):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    try:
        staged.rename(target)
    except OSError:
        if not target.exists():
            raise
        _require_same(f"{target.parent} has", target.name, index(target), index(staged))


def _require_id(read: Adapter, id: str) -> None:
    if read.id != id:
        raise AdapterError(f"{read.path} holds {read.id}; name the directory so")


def _require_same(where: str, id: str, there: Index, here: Index) -> None:
    names = {*there.files, *here.files}
    differing = sorted(n for n in names if there.files.get(n) != here.files.get(n))
    if differing:
        raise BundleTaken(
            f"{where} another {id}, with other {', '.join(differing)}; bundles do not change: train"
            " it under a new id"
        )


def _named(id: str) -> str:
    if not ADAPTER_ID.fullmatch(id):
        raise AdapterError(f"{id!r} is no adapter id (a-z, 0-9, '.', '_', '-')")
    return id
