"""A Store in a bucket of S3, Google Cloud or Azure. Needs the package obstore (extra `bucket`).

Compare-and-swap is the provider's own: a put that holds only for the version that was seen (RFC
9110, If-Match and If-None-Match). Providers without it, such as old S3-compatible servers, refuse.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from proxy.protocol.store import Held, StoreError, Swapped

_CLIENT = {"timeout": "60s", "connect_timeout": "5s"}
_RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_PIECE = 16 * 1024 * 1024
"""Bytes a request: a large file must not have to come within one request's timeout."""


class BucketStore:
    """A prefix of a bucket."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        """`options` as obstore names them; without, what the environment says. Raises StoreError
        for a URL or an option that is none."""
        given = dict(options or {})
        client: dict[str, Any] = dict(_CLIENT)
        endpoint = given.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL", "")
        if endpoint.startswith("http://"):
            client["allow_http"] = True
        config: Any = given
        self._url = url.rstrip("/")
        try:
            self._store: Any = from_url(
                url, config=config, client_options=client, retry_config=_RETRIES
            )
        except (BaseError, ValueError) as error:
            raise StoreError(f"{url}: {_first_line(error)}") from error

    def __str__(self) -> str:
        return self._url

    def read(self, path: str, limit: int) -> Held | None:
        """See Store."""
        with self._translated(path):
            try:
                found = self._store.get(path)
            except FileNotFoundError:
                return None
            if found.meta["size"] > limit:
                raise StoreError(f"{self}/{path} has more than {limit} bytes; it is none of ours")
            content = bytes(found.bytes())
            return Held(content, f"{found.meta.get('e_tag')}\n{found.meta.get('version') or ''}")

    def paths(self, folder: str) -> list[str]:
        """See Store."""
        with self._translated(folder):
            return sorted(meta["path"] for page in self._store.list(folder) for meta in page)

    def create(self, path: str, content: bytes) -> None:
        """See Store."""
        with self._translated(path):
            self._store.put(path, content, mode="create", use_multipart=False)

    def swap(self, path: str, content: bytes, tag: str | None) -> None:
        """See Store."""
        if tag is None:
            return self.create(path, content)
        e_tag, _, version = tag.partition("\n")
        seen = {"e_tag": e_tag} | ({"version": version} if version else {})
        with self._translated(path):
            self._store.put(path, content, mode=seen, use_multipart=False)
        return None

    def keep(self, path: str, file: Path) -> None:
        """Put a file where the same content may be already."""
        with self._translated(path):
            try:
                there = self._store.head(path)["size"]
            except FileNotFoundError:
                there = None
            if there != file.stat().st_size:
                self._store.put(path, file)

    def fetch(self, path: str, target: Path, size: int) -> str:
        """Copy a file of so many bytes to `target`, piece by piece; its SHA-256 as it came."""
        hashed = hashlib.sha256()
        with self._translated(path), target.open("xb") as file:
            for start in range(0, size, _PIECE):
                length = min(_PIECE, size - start)
                piece = bytes(self._store.get_range(path, start=start, length=length))
                hashed.update(piece)
                file.write(piece)
        return hashed.hexdigest()

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError) as error:
            raise Swapped(f"{self}/{path} was changed meanwhile") from error
        except (BaseError, OSError) as error:
            raise StoreError(f"{self}/{path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
