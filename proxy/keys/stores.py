"""Which of the places keys are kept in; the one for databases is an extra."""

from __future__ import annotations

from pathlib import Path

from proxy.errors import MissingExtra
from proxy.keys.base import KeyStore
from proxy.keys.file import FileKeys


def store_of(file: Path | None, database: str | None) -> KeyStore | None:
    """Where keys are kept besides routes.yaml (auth.file, auth.database); None for nowhere."""
    if file is not None:
        return FileKeys(file)
    if database is None:
        return None
    try:
        from proxy.keys.sql import SqlKeys
    except ImportError as error:
        raise MissingExtra(
            f"$.auth.database: this needs the package {error.name!r}, which is not installed;"
            " run: pip install 'headrace[keys]'"
        ) from error
    return SqlKeys(database)
