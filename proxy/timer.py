"""A timeout that costs next to nothing while it does not strike: every request needs some."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self


class Timer(AbstractContextManager["Timer"]):
    """What is going on in it when the time is up is cancelled, and TimeoutError comes out of it.

    To be entered in a task, once. As `asyncio.timeout`, which it follows in what counts as whose
    cancellation, but without its coroutines.
    """

    def __init__(self, seconds: float | None) -> None:
        """None: never."""
        self.has_expired = False
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object]
        self._cancelling: int

    def __enter__(self) -> Self:
        if self._seconds is not None:
            task = asyncio.current_task()
            assert task is not None, "timers are for tasks"
            self._task, self._cancelling = task, task.cancelling()
            self.set(self._seconds)
        return self

    def set(self, seconds: float | None) -> None:
        """In how many seconds the time is up from now on; None: never. For one that has an end."""
        if self._handle is not None:
            self._handle.cancel()
        if seconds is not None and not self.has_expired:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.has_expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if not self.has_expired:
            return
        is_ours = self._task.uncancel() <= self._cancelling
        if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
