"""Files of a source, line by line: plain, gzip or zstd; whatever is wrong with one is a skip.

Files come from anywhere. A line is bounded, so is what a packed block may unpack to, and a file
that breaks off gives the lines before the break.
"""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard

from proxy.protocol.places import place
from trainer.errors import SourceError
from trainer.sources.base import Skips

MAX_LINE = 16 * 1024 * 1024
"""Bytes of a line. Chosen: ten times the longest context that models have."""
MAX_ARRAY = 1024 * 1024 * 1024
"""Bytes of a JSON file that is one array: it has to be in memory as a whole."""
MAX_COMMAS = 64 * 1024 * 1024
"""Commas of such a file: it has no more items. Each takes some 60 bytes, and `[0,0,0` packs to a
thousandth. Chosen: rows have one comma in 16 bytes at most."""
_BLOCK = 256 * 1024
_PACKED = 1024
"""Bytes of zstd that are unpacked at once: they can become 32 MiB, and not more."""
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line, and where it stands: `file:line`."""

    place: str
    content: bytes


class _CutShort(Exception):
    """A packed file ends before its end."""


def find(patterns: Sequence[str]) -> list[Path]:
    """The files that these paths and globs name, sorted; raises SourceError for one of none."""
    found: set[Path] = set()
    for pattern in patterns:
        named = [Path(p) for p in glob.glob(str(place(pattern)), recursive=True)]
        if not named:
            raise SourceError(f"{pattern}: there is no such file; correct the source's `paths`")
        if all(path.is_dir() for path in named):
            raise SourceError(f"{pattern}: no file, but a directory; name its files: *.jsonl")
        found.update(path for path in named if path.is_file())
    return sorted(found)


def read(path: Path, skips: Skips) -> Iterator[Line]:
    """The lines of a file that are not empty; of a `.json` file that is an array, its items."""
    if _holds_an_array(path):
        yield from _items(path, skips)
    else:
        yield from lines(path, skips)


def lines(path: Path, skips: Skips) -> Iterator[Line]:
    """The lines of a file that are not empty, without their ends."""
    number = 0
    try:
        for number, line in enumerate(_split(_blocks(path)), start=1):
            if line is None:
                skips.add(f"{path}:{number}", "line_too_long", f"more than {MAX_LINE} bytes")
            elif line.strip():
                yield Line(f"{path}:{number}", line.removeprefix(_BOM) if number == 1 else line)
    except (_CutShort, EOFError):
        skips.add(f"{path}:{number + 1}", "file_cut_short", "the packed file ends too early")
    except (zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
        skips.add(f"{path}:{number + 1}", "file_damaged", str(error))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error


def _split(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Lines of any stream; None for one that is too long, of which nothing is kept."""
    rest, is_long = b"", False
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield None if is_long or len(line) > MAX_LINE else line
            is_long = False
        if len(rest) > MAX_LINE:
            rest, is_long = b"", True
    if rest or is_long:
        yield None if is_long else rest


def _blocks(path: Path) -> Iterator[bytes]:
    match path.suffix:
        case ".zst":
            yield from _unpacked(path)
        case ".gz":
            with gzip.open(path) as file:
                while block := file.read(_BLOCK):
                    yield block
        case _:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield block


def _unpacked(path: Path) -> Iterator[bytes]:
    zstd = zstandard.ZstdDecompressor().decompressobj()
    is_open = False
    with path.open("rb") as file:
        while packed := file.read(_PACKED):
            while packed:
                yield zstd.decompress(packed)
                packed, is_open = (zstd.unused_data, False) if zstd.eof else (b"", True)
                if zstd.eof:
                    zstd = zstandard.ZstdDecompressor().decompressobj()
    if is_open:
        raise _CutShort


# ---------------------------------------------------------------- one array


def _holds_an_array(path: Path) -> bool:
    if ".json" not in path.suffixes:
        return False
    try:
        first = next(_blocks(path), b"")
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return False
    return first.removeprefix(_BOM).lstrip()[:1] == b"["


def _items(path: Path, skips: Skips) -> Iterator[Line]:
    """The items of an array, named `file[index]`."""
    content, commas = bytearray(), 0
    for block in _blocks(path):
        content += block
        commas += block.count(b",")
        if len(content) > MAX_ARRAY or commas > MAX_COMMAS:
            skips.add(str(path), "file_too_long", "an array this long has to be one item a line")
            return
    try:
        items = msgspec.json.decode(content.removeprefix(_BOM), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        skips.add(str(path), "not_json", str(error))
        return
    for index, item in enumerate(items):
        yield Line(f"{path}[{index}]", bytes(item))
