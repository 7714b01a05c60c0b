"""Exchanges and feedback as they are written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from proxy.protocol.sealing import Keyring
from proxy.protocol.segments import Record, follow_segment, segments

_PAUSE = 0.25
"""Seconds between two looks; what is new is on the disk by the next sync anyway."""


def follow(directory: Path, keyring: Keyring | None = None) -> Iterator[Record]:
    """What is written from now on; never ends."""
    return _followed(
        directory, {path: path.stat().st_size for path in segments(directory)}, keyring
    )


def _followed(
    directory: Path, places: dict[Path, int], keyring: Keyring | None
) -> Iterator[Record]:
    while True:
        yield from _new(directory, places, keyring)
        time.sleep(_PAUSE)


def last(directory: Path, count: int, keyring: Keyring | None = None) -> list[Record]:
    """The last records of the newest segments."""
    found: list[Record] = []
    for path in reversed(segments(directory)):
        found = [record for record, _ in follow_segment(path, 0, keyring)][-count:] + found
        if len(found) >= count:
            break
    return found[-count:] if count else []


def _new(directory: Path, places: dict[Path, int], keyring: Keyring | None) -> Iterator[Record]:
    for path in segments(directory):
        try:
            for record, offset in follow_segment(path, places.get(path, 0), keyring):
                places[path] = offset
                yield record
        except FileNotFoundError:
            # Compacted meanwhile.
            places.pop(path, None)
