"""A sink of segment files, in a directory that other processes may use too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import Encoder, Segment

SEGMENT_BYTES = 64 * 1024 * 1024
"""Size at which a segment is closed. Chosen: read in about a second, shipped in one request."""


class SegmentSink:
    """Appends to a segment of its own and begins the next one when it is large enough.

    The first segment is made with the first exchange, so that a process that records nothing leaves
    nothing. After an error the segment at hand is given up and the next try begins a new one.
    """

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._encoder = Encoder()
        self._segment: Segment | None = None

    def write(self, exchanges: Sequence[Exchange]) -> None:
        frames = self._encoder.encode(exchanges)
        try:
            self._open().append(frames)
        except OSError:
            self._abandon()
            raise

    def sync(self) -> None:
        if self._segment is None:
            return
        try:
            self._segment.sync()
        except OSError:
            # After a failed fsync the kernel may have dropped the pages: this file is not trusted.
            self._abandon()
            raise

    def close(self) -> None:
        self.sync()
        self._abandon()

    def _open(self) -> Segment:
        # Rotation comes before a write: were its sync to fail after one, that would seem to fail.
        if self._segment is not None and self._segment.size >= self._segment_bytes:
            self.close()
        if self._segment is None:
            self._segment = Segment(self._directory)
        return self._segment

    def _abandon(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()
