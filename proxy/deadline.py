"""One deadline for a request, and its shares for the attempts.

The deadline counts until an answer begins; from then on it counts silence, and the answer's whole
length: some never end. It belongs to the request, so that attempts never add up to more than what
the client waits for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.errors import BackendTimeout


class Deadline:
    """When an answer must have begun; pushed back as it goes on, so that only silence ends it."""

    def __init__(self, seconds: float, timer: asyncio.Timeout, longest_s: float = math.inf) -> None:
        """`timer` is the one that runs, due in `seconds`; `longest_s` bounds the whole answer."""
        self._seconds = seconds
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._pushed_at = self._loop.time()
        self._end = self._pushed_at + longest_s
        self._share: asyncio.Timeout | None = None

    @property
    def passed(self) -> bool:
        """Whether a cancellation that is under way is the deadline's, or a share's."""
        return self._timer.expired() or (self._share is not None and self._share.expired())

    @property
    def left_s(self) -> float:
        """Seconds until an answer must have begun."""
        due = self._timer.when()
        return float("inf") if due is None else max(0.0, due - self._loop.time())

    def push(self) -> None:
        """Something was sent: count from now again. Once a second is enough."""
        if self._share is not None:
            self._share.reschedule(None)
            self._share = None
        now = self._loop.time()
        if now - self._pushed_at > min(1.0, self._seconds / 10):
            self._pushed_at = now
            self._timer.reschedule(min(now + self._seconds, self._end))

    @asynccontextmanager
    async def share(self, part: float) -> AsyncIterator[None]:
        """Give an attempt this part of the time that is left, until it has sent something.

        Raises BackendTimeout when it has not by then. 1 is all of it, and needs no timer.
        """
        if part >= 1:
            yield
            return
        seconds = part * self.left_s
        try:
            async with asyncio.timeout(seconds) as self._share:
                yield
        except TimeoutError as error:
            raise BackendTimeout(
                f"the backend has not answered within its {seconds:.3g} s"
            ) from error
        finally:
            self._share = None
