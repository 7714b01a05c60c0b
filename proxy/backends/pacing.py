"""How long an engine may take: to the first piece of an answer, between two, for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from proxy.backends.settings import EngineSettings
from proxy.errors import BackendTimeout, FirstTokenTimeout, StallTimeout, TotalTimeout

T = TypeVar("T")


class Pace:
    """Ends a wait for an answer's next piece that takes too long; for the task that makes it.

    One timer for all waits: it looks, when it is due, whether the wait at hand is overdue. A
    timeout for each would cost more than reading the piece does.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.time() + settings.total_s
        self._patience = settings.first_token_s
        self._late: type[BackendTimeout] = FirstTokenTimeout
        self._due: float | None = None
        """When the wait at hand is overdue; None between two."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        """Who waits."""
        self._has_struck = False

    async def next(self, pieces: AsyncGenerator[T, None]) -> T | None:
        """The next piece, None at the end; raises BackendTimeout of the kind that says which wait
        was too long."""
        task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        self._wait_for(task)
        try:
            piece = await anext(pieces, None)
        except asyncio.CancelledError as error:
            if self._has_struck and task.uncancel() <= cancelled:
                raise self._timeout() from error
            raise
        finally:
            self._due = None
        self._patience, self._late = self._settings.stall_s, StallTimeout
        return piece

    def stop(self) -> None:
        """Nobody waits any longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait_for(self, task: asyncio.Task[object]) -> None:
        self._task, self._has_struck = task, False
        self._due = min(self._loop.time() + self._patience, self._over)
        if self._timer is None or self._timer.when() > self._due:
            self._look_at(self._due)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due is None or self._task is None:
            return
        if self._loop.time() < self._due:
            self._look_at(self._due)
        else:
            self._has_struck = True
            self._task.cancel()

    def _timeout(self) -> BackendTimeout:
        if self._loop.time() >= self._over:
            return TotalTimeout(f"the answer was not over within {self._settings.total_s:g} s")
        return self._late(f"the engine sent nothing for {self._patience:g} s")
