"""One deadline for a request, and its shares for the attempts.

The deadline counts until an answer begins; from then on it counts silence, and the answer's whole
length: some never end. It belongs to the request, so that attempts never add up to more than what
the client waits for.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from proxy.errors import BackendTimeout


class Deadline(AbstractAsyncContextManager["Deadline"]):
    """When an answer must have begun; pushed back as it goes on, so that only silence ends it.

    A context manager: what is still going on in it when the time is up is ended by BackendTimeout.
    """

    def __init__(self, seconds: float, longest_s: float = math.inf) -> None:
        """`longest_s` bounds the whole answer."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._pushed_at = self._loop.time()
        self._end = self._pushed_at + longest_s
        self._timer = asyncio.timeout(seconds)
        self._share: asyncio.Timeout | None = None
        self._share_s = seconds

    async def __aenter__(self) -> Self:
        await self._timer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._timer.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise self._late() from late
        if isinstance(error, TimeoutError):
            raise self._late() from error

    def _late(self) -> BackendTimeout:
        return BackendTimeout(
            f"no backend answered within {self._seconds:g} s, or its answer had no end"
        )

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
            if self._share.when() is not None:
                self._share.reschedule(None)
            self._share = None
        now = self._loop.time()
        if now - self._pushed_at > min(1.0, self._seconds / 10):
            self._pushed_at = now
            self._timer.reschedule(min(now + self._seconds, self._end))

    def share(self, part: float) -> asyncio.Timeout:
        """A timeout that gives an attempt this part of the time that is left, until it has sent
        something. 1 is all of it, and needs no timer of its own."""
        self._share_s = part * self.left_s
        self._share = asyncio.timeout(None if part >= 1 else self._share_s)
        return self._share

    def share_over(self) -> BackendTimeout:
        """The attempt has failed; what it means if that was a TimeoutError."""
        self._share = None
        return BackendTimeout(f"the backend has not answered within its {self._share_s:.3g} s")
