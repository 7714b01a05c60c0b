"""One deadline for a request, and its shares for the attempts.

The deadline counts until an answer begins; from then on it counts silence, and the answer's whole
length: some never end. It belongs to the request, so that attempts never add up to more than what
the client waits for.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from proxy.errors import BackendTimeout
from proxy.timer import Timer


class Deadline(AbstractContextManager["Deadline"]):
    """When an answer must have begun; pushed back as it goes on, so that only silence ends it.

    A context manager: what is still going on in it when the time is up is ended by BackendTimeout.
    """

    def __init__(self, seconds: float, longest_s: float = math.inf) -> None:
        """`longest_s` bounds the whole answer."""
        self._seconds = seconds
        self._pushed_at = time.monotonic()
        self._end = self._pushed_at + longest_s
        self._due = self._pushed_at + seconds
        self._timer = Timer(seconds)
        self._share: Timer | None = None
        self._share_s = seconds

    def __enter__(self) -> Self:
        self._timer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._timer.__exit__(kind, error, traceback)
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
        share = self._share
        return self._timer.has_expired or (share is not None and share.has_expired)

    def push(self) -> None:
        """Something was sent: count from now again. Once a second is enough."""
        if self._share is not None:
            self._share.set(None)
            self._share = None
        now = time.monotonic()
        if now - self._pushed_at > min(1.0, self._seconds / 10):
            self._pushed_at, self._due = now, min(now + self._seconds, self._end)
            self._timer.set(self._due - now)

    def share(self, part: float) -> Timer:
        """A timer that gives an attempt this part of the time that is left, until it has sent
        something. 1 is all of it, and needs no timer of its own."""
        self._share_s = part * max(0.0, self._due - time.monotonic())
        self._share = Timer(None if part >= 1 else self._share_s)
        return self._share

    def share_over(self) -> BackendTimeout:
        """The attempt has failed; what it means if that was a TimeoutError."""
        self._share = None
        return BackendTimeout(f"the backend has not answered within its {self._share_s:.3g} s")
