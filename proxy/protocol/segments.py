"""Segment files: how exchanges, feedback and shadows lie on disk.

A segment is a file `….segment` of frames, one record each, only ever appended to:

    MAGIC (3 bytes) | kind (1) | length (4, little-endian) | CRC-32 (4) | payload

    kind 1, 2, 5   an exchange, feedback, a shadow: its JSON, compressed with zstd
    kind 3, 4, 6   the same, then encrypted (sealing)

A process that is killed leaves a torn frame at the end, and a disk may spoil one in the middle.
The reader skips from a bad frame to the next good one: whatever was written whole is found. A whole
frame of a newer release is no bad one: it is refused, since who skipped it would delete it.
MAGIC holds a byte that UTF-8 never has, so that no text in an exchange can pass for a frame.

Who writes a segment holds a lock on it (flock): what is not locked is complete, whether its writer
closed it or was killed, and may be compacted or rewritten.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import msgspec
import zstandard

from proxy.protocol.exchange import Exchange, NewerRecord
from proxy.protocol.feedback import Feedback
from proxy.protocol.sealing import Keyring, SealError
from proxy.protocol.shadowed import Shadowed

Record: TypeAlias = Exchange | Feedback | Shadowed

SUFFIX = ".segment"
MAGIC = b"\xffHX"
MAX_FRAME = 256 * 1024 * 1024
"""Bytes that an exchange may have, compressed or not; a larger length is a spoilt one."""

_HEADER = struct.Struct("<3sBII")
_EXCHANGE, _FEEDBACK, _SHADOW = 1, 2, 5
_SEALED = {_EXCHANGE: 3, _FEEDBACK: 4, _SHADOW: 6}
"""Kind of a frame → its kind when it is encrypted."""
_OPENED = {sealed: kind for kind, sealed in _SEALED.items()}
_FIRST = ord("0")
_NEWER = range(7, 16)
"""Kinds of frames that a later release may write; what is beyond them is a spoilt byte."""
_KINDS = frozenset({*_SEALED, *_OPENED, *_NEWER})
_STEP = 64 * 1024
_LEVEL = 3
"""Compression: zstd's own default."""

Damage = Callable[[Path, int], None]
"""Told of a file and the offset of bytes in it that are no whole exchange."""


# ---------------------------------------------------------------- writing


class Encoder:
    """Records to frames. Keeps a compressor, so that it serves one thread at a time."""

    def __init__(self, keyring: Keyring | None = None) -> None:
        """With a keyring, frames are encrypted."""
        self._json = msgspec.json.Encoder()
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)
        self._keyring = keyring

    def encode(self, records: Iterable[Record]) -> bytes:
        """The frames of these records, in order."""
        return b"".join(map(self._frame, records))

    def _frame(self, record: Record) -> bytes:
        kind = _kind(record)
        packed = self._zstd.compress(self._json.encode(record))
        if self._keyring is not None:
            kind = _SEALED[kind]
            packed = self._keyring.seal(packed, _label(kind))
        return _HEADER.pack(MAGIC, _FIRST + kind, len(packed), zlib.crc32(packed)) + packed


def _kind(record: Record) -> int:
    match record:
        case Feedback():
            return _FEEDBACK
        case Shadowed():
            return _SHADOW
        case _:
            return _EXCHANGE


def _label(kind: int) -> bytes:
    return b"headrace segment %d" % kind


class Segment:
    """One segment file, new and open for appending. Blocks: call it in a thread."""

    def __init__(self, directory: Path) -> None:
        """Make the file, for its owner only, and the directory if it is missing."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / _new_name()
        self._file = _created(self.path)
        self.size = 0
        self.begun = time.monotonic()
        self.begun_at = time.time()
        self._is_synced = True
        _sync_directory(directory)

    def append(self, frames: bytes) -> None:
        """Write all of these frames or, when OSError is raised, none; then it must be closed."""
        self._check_there()
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
            self._check_there()
            self._is_synced = True

    def _check_there(self) -> None:
        """Raise FileNotFoundError when somebody has removed the file: what is written to it still,
        nobody will read."""
        os.stat(self.path)

    def close(self) -> None:
        """Close the file, without a sync; remove it when nothing is in it."""
        os.close(self._file)
        if not self.size:
            self.path.unlink(missing_ok=True)


def _created(path: Path) -> int:
    """A new, locked file. It has its name from when it is locked on: a file that could be found
    unlocked could be taken for a complete one."""
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    nameless = path.with_name(f".{path.name}.new")
    file = os.open(nameless, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        nameless.rename(path)
    except OSError:
        os.close(file)
        raise
    return file


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


def read(
    directory: Path, on_damage: Damage = _ignore, keyring: Keyring | None = None
) -> Iterator[Exchange]:
    """The exchanges of all segments in a directory, oldest segment first.

    Segments that are still being written may be read. No directory is no exchanges. Raises
    SealError for what is encrypted with a key that the keyring lacks, and NewerRecord.
    """
    for path in segments(directory):
        for record in read_segment(path, on_damage, keyring):
            if isinstance(record, Exchange):
                yield record


def segments(directory: Path) -> list[Path]:
    """The segments of a directory, oldest first."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def read_segment(
    path: Path, on_damage: Damage = _ignore, keyring: Keyring | None = None
) -> Iterator[Record]:
    """The records of one segment, in the order in which they were written; raises as `read`."""
    zstd = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        for frame in _frames(path, file, on_damage):
            try:
                yield _record(path, frame, keyring, zstd)
            except (zstandard.ZstdError, ValueError):
                on_damage(path, frame.offset)


def follow_segment(
    path: Path, offset: int, keyring: Keyring | None = None
) -> Iterator[tuple[Record, int]]:
    """The records of a segment from an offset on, each with the offset behind it; ends where the
    segment does, or at a frame that is not whole yet. Raises as `read`."""
    zstd = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        while header := _at(file, offset, _HEADER.size):
            frame = _frame(file, offset, header)
            if frame is None:
                return
            offset += _HEADER.size + len(frame.payload)
            yield _record(path, frame, keyring, zstd), offset


def _record(
    path: Path, frame: _Frame, keyring: Keyring | None, zstd: zstandard.ZstdDecompressor
) -> Record:
    """What is in a frame; raises ZstdError and ValueError for what is spoilt."""
    try:
        if frame.kind in _NEWER:
            raise _newer(path, frame)
        content = unpacked(_opened(frame, keyring), zstd)
        return _decoders[frame.kind].decode(content)
    except msgspec.ValidationError as error:
        # It is as it was written, for the checksum holds, and it is JSON.
        if _is_ours(frame, zstd):
            raise
        raise _newer(path, frame) from error
    except (NewerRecord, SealError):
        if _is_ours(frame, zstd):
            raise ValueError("its kind is spoilt") from None
        raise


def _is_ours(frame: _Frame, zstd: zstandard.ZstdDecompressor) -> bool:
    """Whether it has the form of some kind of ours; then its own was spoilt, which the checksum
    is not of."""
    with suppress(zstandard.ZstdError):
        content = unpacked(frame.payload, zstd)
        for decoder in _decoders.values():
            with suppress(ValueError):
                decoder.decode(content)
                return True
    return False


def _newer(path: Path, frame: _Frame) -> NewerRecord:
    return NewerRecord(
        f"{path}: a newer release wrote what is at byte {frame.offset}; upgrade Headrace, or move"
        " the file elsewhere until then"
    )


def unpacked(packed: bytes, zstd: zstandard.ZstdDecompressor) -> bytes:
    """What was compressed; raises ZstdError, also for what says that it is larger than a frame."""
    # The library heeds its bound only where the compressed bytes do not tell their size.
    if zstandard.frame_content_size(packed) > MAX_FRAME:
        raise zstandard.ZstdError(f"more than {MAX_FRAME} bytes")
    return zstd.decompress(packed, max_output_size=MAX_FRAME)


def _opened(frame: _Frame, keyring: Keyring | None) -> bytes:
    if not frame.is_sealed:
        return frame.payload
    if keyring is None:
        raise SealError("the record is encrypted, and there is no key (record.encryption)")
    return keyring.open(frame.payload, _label(_SEALED[frame.kind]))


_WANTED = "close-segments"


def want_closed(directory: Path) -> None:
    """Ask all who write segments in a directory to close those at hand; they do within seconds."""
    (directory / _WANTED).touch()


def wanted_since(directory: Path) -> float:
    """When that was asked last, in seconds since the epoch; 0 for never."""
    try:
        return (directory / _WANTED).stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def completed(path: Path) -> Iterator[bool]:
    """Whether a segment is complete; while it is, nobody else has it. Yields False for one that
    is being written, that another process works on, or that is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(file)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Frame(NamedTuple):
    offset: int
    kind: int
    """As if it were not encrypted."""
    is_sealed: bool
    payload: bytes


_decoders: dict[int, msgspec.json.Decoder[Record]] = {
    _EXCHANGE: msgspec.json.Decoder(Exchange),
    _FEEDBACK: msgspec.json.Decoder(Feedback),
    _SHADOW: msgspec.json.Decoder(Shadowed),
}


def _frames(path: Path, file: BinaryIO, on_damage: Damage) -> Iterator[_Frame]:
    """Each whole frame."""
    offset = 0
    while header := _at(file, offset, _HEADER.size):
        frame = _frame(file, offset, header)
        if frame is not None:
            yield frame
            offset += _HEADER.size + len(frame.payload)
            continue
        on_damage(path, offset)
        following = _find_magic(file, offset + 1)
        if following is None:
            return
        offset = following


def _frame(file: BinaryIO, offset: int, header: bytes) -> _Frame | None:
    if len(header) < _HEADER.size:
        return None
    magic, kind, length, checksum = _HEADER.unpack(header)
    kind -= _FIRST
    if magic != MAGIC or kind not in _KINDS or length > MAX_FRAME:
        return None
    packed = _at(file, offset + _HEADER.size, length)
    if len(packed) != length or zlib.crc32(packed) != checksum:
        return None
    return _Frame(offset, _OPENED.get(kind, kind), kind in _OPENED, packed)


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
