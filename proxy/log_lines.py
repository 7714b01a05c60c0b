"""Log lines go out in a thread of their own: a pipe that nobody reads stops no request.

What does not fit into the queue meanwhile is dropped, counted and, when lines go out again, told.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import BinaryIO

import msgspec

MOST = 10_000
"""Lines that wait at most. Chosen: some 5 MiB."""


class LogLines:
    """A logger for structlog: takes lines as bytes, waits for nobody."""

    def __init__(self, stream: BinaryIO, most: int = MOST) -> None:
        self.dropped = 0
        """Lines for which there was no room, and that were not told of yet."""
        self._stream = stream
        self._lines: queue.Queue[bytes] = queue.Queue(most)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def msg(self, line: bytes) -> None:
        """Write this line, soon."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    log = debug = info = warning = error = critical = exception = msg

    def flush(self, patience: float = 1.0) -> None:
        """Wait until all lines are out, for so many seconds."""
        end = time.monotonic() + patience
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._stream.write(line + b"\n" + self._told())
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody is there to be told: the pipe is closed.
                pass
            finally:
                self._lines.task_done()

    def _told(self) -> bytes:
        dropped, self.dropped = self.dropped, 0
        if not dropped:
            return b""
        told = {"event": "log_lines_dropped", "count": dropped, "level": "warning"}
        return msgspec.json.encode(told) + b"\n"
