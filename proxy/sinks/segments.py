"""A sink of segment files, in a directory that other processes may use too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from proxy.protocol.sealing import Keyring
from proxy.protocol.segments import Encoder, Record, Segment, wanted_since

SEGMENT_BYTES = 64 * 1024 * 1024
"""Size at which a segment is closed. Chosen: read in about a second, shipped in one request."""

SEGMENT_S = 300.0
"""Age in seconds at which it is. Chosen: what compaction may lag behind."""


class SegmentSink:
    """Appends to a segment of its own and begins the next one when it is large or old enough, or
    when somebody asks for it (`segments.want_closed`).

    The first segment is made with the first exchange, so that a process that records nothing leaves
    nothing. After an error the segment at hand is given up and the next try begins a new one.
    """

    def __init__(
        self,
        directory: Path,
        segment_bytes: int = SEGMENT_BYTES,
        segment_s: float = SEGMENT_S,
        keyring: Keyring | None = None,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment_s = segment_s
        self._encoder = Encoder(keyring)
        self._segment: Segment | None = None

    @property
    def is_open(self) -> bool:
        return self._segment is not None

    def write(self, records: Sequence[Record]) -> None:
        frames = self._encoder.encode(records)
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

    def tidy(self) -> None:
        if self._segment is not None and self._is_over(self._segment):
            self.close()

    def close(self) -> None:
        self.sync()
        self._abandon()

    def _is_over(self, segment: Segment) -> bool:
        is_old = time.monotonic() - segment.begun >= self._segment_s
        return (
            is_old
            or segment.size >= self._segment_bytes
            or wanted_since(self._directory) > segment.begun_at
        )

    def _open(self) -> Segment:
        # Rotation comes before a write: were its sync to fail after one, that would seem to fail.
        self.tidy()
        if self._segment is None:
            self._segment = Segment(self._directory)
        return self._segment

    def _abandon(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()
