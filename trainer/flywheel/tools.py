"""Tools as rows offer them: name → the fingerprints of its schemas, of which there may be several
while a new version is rolled out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from proxy.protocol import atomic
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import MalformedRequest
from trainer.rows import Row


def offered(row: Row) -> dict[str, str]:
    """Tool → fingerprint, of those whose schema can be read."""
    found = {}
    for function in row.functions:
        try:
            found[function.name] = fingerprint(function)
        except MalformedRequest:
            continue
    return found


def write(path: Path, rows: Iterable[Row]) -> None:
    """The tools of all rows."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, hashed in offered(row).items():
            found.setdefault(name, set()).add(hashed)
    named = {name: sorted(hashes) for name, hashes in sorted(found.items())}
    atomic.write(path, msgspec.json.format(msgspec.json.encode(named)))


def read(path: Path) -> Mapping[str, list[str]]:
    """What `write` wrote; {} where there is nothing to read any more."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except (OSError, ValueError):
        return {}
