"""Which files of the archive take the place of others; readers everywhere go by it.

Each record directory has one list of them, `joins/<mark>.json` in the archive, and nobody else
writes it. A join is

    joining   the new file counts once it is there, and from then on the old ones do not
    joined    the same; the old ones were as they had been read, and are being deleted
    undone    they were not: the old files count, and the new one, which may have what was erased of
              them, does not

and leaves the list when what does not count has been gone for a while. So whoever lists the files
first and reads the lists then sees each row once, whatever is put or deleted meanwhile: has he seen
the new file, then it is on the list; has he not, then he has seen the old ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from proxy.protocol.exchange import NewerRecord
from proxy.record.archive import Archive, Gone

FOLDER = "joins"
_SUFFIX = ".json"


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """One file that takes the place of several."""

    file: str
    """Path in the archive; never had by another file."""
    replaced: dict[str, str]
    """Path of each old file → its version when it was read (archive.Listed)."""
    state: Literal["joining", "joined", "undone"] = "joining"
    at: float
    """Since when it is at this, in seconds since the epoch by its machine's clock."""


_decoder = msgspec.json.Decoder(list[Join])


def read(archive: Archive) -> Iterator[Join]:
    """The joins of all directories; raises ArchiveUnavailable and NewerRecord."""
    for path in archive.paths(FOLDER):
        yield from _read(archive, path)


def of(archive: Archive, mark: str) -> list[Join]:
    """The joins of one directory."""
    return _read(archive, _path(mark))


def write(archive: Archive, mark: str, joins: Sequence[Join], scratch: Path) -> None:
    """These are now the joins of a directory."""
    if not joins:
        archive.delete(_path(mark))
        return
    fresh = scratch / f"{mark}{_SUFFIX}"
    fresh.write_bytes(msgspec.json.encode(joins))
    archive.put(_path(mark), fresh)


def uncounted(paths: Collection[str], joins: Iterable[Join]) -> set[str]:
    """Those files that do not count of all that there are."""
    there = set(paths)
    gone: set[str] = set()
    for join in joins:
        if join.state == "undone":
            gone.add(join.file)
        elif join.file in there:
            gone.update(join.replaced)
    return gone


def _path(mark: str) -> str:
    return f"{FOLDER}/{mark}{_SUFFIX}"


def _read(archive: Archive, path: str) -> list[Join]:
    # A list whose last join is over is deleted.
    with suppress(Gone):
        try:
            return _decoder.decode(archive.get(path))
        except msgspec.DecodeError as error:
            told = f"{path}, in the archive, is no list that this release knows; upgrade Headrace"
            raise NewerRecord(told) from error
    return []
