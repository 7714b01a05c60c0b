"""Segment files: how exchanges lie on disk.

A segment is a file `….segment` of frames, one exchange each, only ever appended to:

    MAGIC (4 bytes) | length (4, little-endian) | CRC-32 (4) | zstd of the exchange's JSON

A process that is killed leaves a torn frame at the end, and a disk may spoil one in the middle.
The reader skips from a bad frame to the next good one: whatever was written whole is found.
MAGIC holds a byte that UTF-8 never has, so that no text in an exchange can pass for a frame.
"""

from __future__ import annotations

import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from proxy.protocol.exchange import Exchange

SUFFIX = ".segment"
MAGIC = b"\xffHX1"
MAX_FRAME = 256 * 1024 * 1024
"""Bytes that an exchange may have, compressed or not; a larger length is a spoilt one."""

_HEADER = struct.Struct("<4sII")
_STEP = 64 * 1024
_LEVEL = 3
"""Compression: zstd's own default."""

Damage = Callable[[Path, int], None]
"""Told of a file and the offset of bytes in it that are no whole exchange."""


# ---------------------------------------------------------------- writing


class Encoder:
    """Exchanges to frames. Keeps a compressor, so that it serves one thread at a time."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder()
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)

    def encode(self, exchanges: Iterable[Exchange]) -> bytes:
        """The frames of these exchanges, in order."""
        return b"".join(map(self._frame, exchanges))

    def _frame(self, exchange: Exchange) -> bytes:
        packed = self._zstd.compress(self._json.encode(exchange))
        return _HEADER.pack(MAGIC, len(packed), zlib.crc32(packed)) + packed


class Segment:
    """One segment file, new and open for appending. Blocks: call it in a thread."""

    def __init__(self, directory: Path) -> None:
        """Make the file, for its owner only, and the directory if it is missing."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / _new_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        self.size = 0
        self._is_synced = True
        _sync_directory(directory)

    def append(self, frames: bytes) -> None:
        """Write all of these frames or, when OSError is raised, none; then it must be closed."""
        self._is_synced = False
        try:
            rest = memoryview(frames)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            # What was written of them would be there twice after the next try.
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(frames)

    def sync(self) -> None:
        """What was appended outlives a power cut once this returns."""
        if not self._is_synced:
            os.fsync(self._file)
            self._is_synced = True

    def close(self) -> None:
        """Close the file, without a sync; remove it when nothing is in it."""
        os.close(self._file)
        if not self.size:
            self.path.unlink(missing_ok=True)


def _new_name() -> str:
    """A name of its own that sorts by time: `20260130T120000.123456-4711-9f3a.segment`."""
    now = time.time()
    second = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{second}.{int(now % 1 * 1e6):06d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"


def _sync_directory(directory: Path) -> None:
    # Without this a power cut may take the file's name, and with it all that was synced.
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- reading


def _ignore(path: Path, offset: int) -> None:
    pass


def read(directory: Path, on_damage: Damage = _ignore) -> Iterator[Exchange]:
    """The exchanges of all segments in a directory, oldest segment first.

    Segments that are still being written may be read. No directory is no exchanges.
    """
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        yield from read_segment(path, on_damage)


def read_segment(path: Path, on_damage: Damage = _ignore) -> Iterator[Exchange]:
    """The exchanges of one segment, in the order in which they were written."""
    decoder = msgspec.json.Decoder(Exchange)
    zstd = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        for offset, packed in _frames(path, file, on_damage):
            try:
                yield decoder.decode(zstd.decompress(packed, max_output_size=MAX_FRAME))
            except (zstandard.ZstdError, ValueError):
                on_damage(path, offset)


def _frames(path: Path, file: BinaryIO, on_damage: Damage) -> Iterator[tuple[int, bytes]]:
    """Offset and payload of each whole frame."""
    offset = 0
    while header := _at(file, offset, _HEADER.size):
        packed = _payload(file, offset, header)
        if packed is not None:
            yield offset, packed
            offset += _HEADER.size + len(packed)
            continue
        on_damage(path, offset)
        following = _find_magic(file, offset + 1)
        if following is None:
            return
        offset = following


def _payload(file: BinaryIO, offset: int, header: bytes) -> bytes | None:
    if len(header) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack(header)
    if magic != MAGIC or length > MAX_FRAME:
        return None
    packed = _at(file, offset + _HEADER.size, length)
    return packed if len(packed) == length and zlib.crc32(packed) == checksum else None


def _find_magic(file: BinaryIO, offset: int) -> int | None:
    while block := _at(file, offset, _STEP):
        found = block.find(MAGIC)
        if found >= 0:
            return offset + found
        if len(block) < _STEP:
            return None
        offset += len(block) - len(MAGIC) + 1
    return None


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
