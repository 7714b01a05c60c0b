"""SIGTERM and SIGINT, heard between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopping:
    """While it is entered, signals to stop set `asked` instead of ending the process."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stopping:
        # Python lets only the main thread hear signals; elsewhere nobody stops us by one.
        self._here = threading.current_thread() is threading.main_thread()
        if self._here:
            self._before = {
                number: signal.signal(number, self._hear)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._here:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        # The second Ctrl-C is meant: nobody waits for a step of a minute.
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
