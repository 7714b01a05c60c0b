"""Log lines go out in a thread of their own: a pipe that nobody reads stops no request.

They go out a few at a time: waking the thread costs more than writing a line does. What does not
fit into the queue is dropped, counted and, when lines go out again, told.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import BinaryIO

import msgspec

MOST = 10_000
"""Lines that wait at most. Chosen: some 5 MiB."""
_PAUSE_S = 0.1
"""Seconds for which a first line waits for others: each time that this thread wakes, the loop's
has to give way to it. Chosen: nobody who reads along notices."""
_AT_ONCE = 64
"""Lines that are written at once: about what a pipe holds."""


class LogLines:
    """A logger for structlog: takes lines as bytes, waits for nobody."""

    def __init__(self, stream: BinaryIO, most: int = MOST) -> None:
        self.dropped = 0
        """Lines for which there was no room, and that were not told of yet."""
        self._stream = stream
        self._most = most
        self._lines: deque[bytes] = deque()
        """Those that are being written too: they are gone once they are out."""
        self._brought = threading.Event()
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def msg(self, line: bytes) -> None:
        """Write this line, soon."""
        if len(self._lines) >= self._most:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._brought.is_set():
            self._brought.set()

    log = debug = info = warning = error = critical = exception = msg

    def flush(self, patience: float = 1.0) -> None:
        """Wait until all lines are out, for so many seconds."""
        end = time.monotonic() + patience
        while self._lines and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            self._brought.wait()
            time.sleep(_PAUSE_S)
            self._brought.clear()
            while self._lines:
                self._write_some()

    def _write_some(self) -> None:
        lines = [self._lines[place] for place in range(min(_AT_ONCE, len(self._lines)))]
        try:
            self._stream.write(b"\n".join(lines) + b"\n" + self._told())
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody is there to be told: the pipe is closed.
            pass
        for _ in lines:
            self._lines.popleft()

    def _told(self) -> bytes:
        dropped, self.dropped = self.dropped, 0
        if not dropped:
            return b""
        told = {"event": "log_lines_dropped", "count": dropped, "level": "warning"}
        return msgspec.json.encode(told) + b"\n"
