"""headrace fetch: copy a model, or adapter bundles, out of a bucket before an engine starts.

A folder is whole when its marker is there; one that is whole is left alone, so that a restart costs
nothing. Needs the package obstore (extra `bucket`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy.errors import CannotStart, MissingExtra

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MARKER = ".headrace-fetched"
"""File that says of which URL its folder is a whole copy."""
_PIECE = 16 * 1024 * 1024
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(minutes=5)}
"""A start may wait for the network; an engine without weights cannot do anything else."""


class FetchFailed(CannotStart):
    """The files cannot be had, or not be written."""


class File(NamedTuple):
    """One file of the bucket: its path below the URL, and its size in bytes."""

    path: str
    size: int


def fetch(url: str, directory: Path, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Copy all files below `url` (`s3://`, `gs://`, `az://`, `file://`) into `directory`.

    Yields a line for people after each file. Credentials are those of the environment, under the
    names that the providers' own tools use. Raises FetchFailed, and leaves no marker.
    """
    marker = directory / MARKER
    if marker.is_file() and marker.read_text() == url:
        yield f"{directory} is a whole copy of {url}"
        return
    store = _store(url, dict(os.environ) if environment is None else environment)
    try:
        files = list(_files(store, directory))
        if not files:
            raise FetchFailed(f"{url}: nothing is there; is the path complete?")
        marker.unlink(missing_ok=True)
        for number, file in enumerate(files, start=1):
            _copy(store, file, directory / file.path)
            yield f"{number}/{len(files)} {file.path} {file.size / 2**20:.1f} MiB"
        marker.write_text(url)
    except OSError as error:
        raise FetchFailed(f"{directory}: {error.strerror or error}") from error


def _store(url: str, environment: dict[str, str]) -> ObjectStore:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise MissingExtra(
            "fetch needs the package 'obstore', which is not installed; run:"
            " pip install 'headrace[bucket]'"
        ) from error
    options: dict[str, Any] = {}
    if environment.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["client_options"] = {"allow_http": True}
    try:
        return from_url(url, retry_config=_RETRIES, **options)
    except (BaseError, ValueError) as error:
        raise FetchFailed(
            f"{url}: {_first_line(error)}; a URL is like s3://bucket/folder"
        ) from error


def _files(store: ObjectStore, directory: Path) -> Iterator[File]:
    """What is to be copied; a name that would lead out of the directory is refused."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        metas = [meta for page in obstore.list(store) for meta in page]
    except BaseError as error:
        raise FetchFailed(_first_line(error)) from error
    for file in sorted(File(str(meta["path"]), int(meta["size"])) for meta in metas):
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise FetchFailed(f"{file.path!r} would be written outside of {directory}")
        if path.name != MARKER:
            yield file


def _copy(store: ObjectStore, file: File, target: Path) -> None:
    import obstore
    from obstore.exceptions import BaseError

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as written:
            for piece in obstore.get(store, file.path).stream(min_chunk_size=_PIECE):
                written.write(piece)
    except BaseError as error:
        raise FetchFailed(f"{file.path}: {_first_line(error)}") from error
    if part.stat().st_size != file.size:
        raise FetchFailed(
            f"{file.path}: {part.stat().st_size} of {file.size} bytes came; try again"
        )
    part.replace(target)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
