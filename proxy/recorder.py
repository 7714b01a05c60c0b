"""A bounded queue in front of a sink: a request pays for putting its recording in, and no more.

Recordings are turned into exchanges, written and synced in a thread, one batch at a time. A sink
that fails is tried again until it works; meanwhile the queue fills, and what does not fit is
dropped and counted. No request waits for the record, or fails for it, unless it is to be durable
before the reply (`keep`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeAlias

import msgspec
import structlog

from proxy.errors import RecordUnavailable
from proxy.keeping import Keeping
from proxy.protocol.feedback import Feedback
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed
from proxy.recording import Recording
from proxy.sinks.base import Sink

BATCH = 256
"""Exchanges that are written at once."""

_PAUSE_S = 0.05
"""Seconds for which a first recording waits for others, where nobody waits for it."""

TIDY_S = 1.0
"""Seconds between two looks at whether a segment that is open should be closed."""

log = structlog.get_logger()

Given: TypeAlias = Recording | Feedback | Shadowed


class Health(msgspec.Struct, frozen=True):
    """How the record is doing, since the process started."""

    problem: str | None
    """The sink's error if its last write failed; None when all is well."""
    waiting: int
    written: int
    dropped: int
    lost: int
    errors: int


class _Item(NamedTuple):
    size: int
    given: Given
    kept: asyncio.Future[None] | None = None
    """Told when it is on the disk."""


class Recorder:
    """Takes recordings from requests and gives exchanges to a sink."""

    def __init__(
        self,
        sink: Sink,
        *,
        max_waiting: int = 10_000,
        max_waiting_bytes: int = 256 * 1024 * 1024,
        sync_s: float = 0.5,
        retry_s: float = 1.0,
        keeping: Callable[[Given], Record] | None = None,
        is_durable: bool = False,
    ) -> None:
        """`sync_s`: what a power cut may cost; `retry_s`: the pause after an error of the sink.

        `keeping` makes of a recording what is kept. With `is_durable`, requests should `keep` and
        not `put`.
        """
        self.is_durable = is_durable
        self.written = 0
        """Records that the sink has."""
        self.dropped = 0
        """Recordings for which there was no room."""
        self.lost = 0
        """Recordings that could not be kept: unreadable, or left when the time to drain was up."""
        self.errors = 0
        """Errors of the sink; what they concerned was tried again."""
        self.problem: str | None = None
        """The sink's error if its last write failed; None when all is well."""
        self._sink = sink
        self._sync_s = sync_s
        self._retry_s = retry_s
        self._keeping = keeping or Keeping()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(max_waiting)
        self._max_bytes = max_waiting_bytes
        self._bytes = 0
        self._taken: deque[Given] = deque()
        self._records: list[Record] = []
        self._kept: list[asyncio.Future[None]] = []
        self._has_lost = False
        self._room = asyncio.Event()
        self._unsynced_since: float | None = None
        self._busy: asyncio.Future[None] | None = None
        self._drops = _Drops()

    def put(self, given: Given) -> bool:
        """Keep this; never waits, never raises. Whether there was room for it.

        What must not be kept, or is kept already, is left alone.
        """
        size = _size(given)
        if not _wanted(given):
            return True
        if not self._has_room(size):
            self.dropped += 1
            self._drops.add()
            return False
        self._enqueue(_Item(size, given))
        return True

    async def keep(self, given: Given, patience: float = 10.0) -> None:
        """Keep this, and return when it is on the disk.

        Raises RecordUnavailable when it is not after `patience` seconds; it may be kept later.
        """
        if not _wanted(given):
            return
        kept = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(patience):
                while not self._has_room(_size(given)):
                    self._room.clear()
                    await self._room.wait()
                self._enqueue(_Item(_size(given), given, kept))
                await kept
        except TimeoutError as error:
            raise RecordUnavailable(
                "the exchange cannot be recorded now, and this server answers nothing without"
            ) from error

    def _has_room(self, size: int) -> bool:
        return not self._queue.full() and self._bytes + size <= self._max_bytes

    def _enqueue(self, item: _Item) -> None:
        if isinstance(item.given, Recording):
            item.given.is_kept = True
        self._bytes += item.size
        self._queue.put_nowait(item)

    @property
    def waiting(self) -> int:
        """Recordings that are not written yet."""
        return self._queue.qsize() + len(self._taken) + len(self._records)

    @property
    def health(self) -> Health:
        """How the record is doing."""
        return Health(
            problem=self.problem,
            waiting=self.waiting,
            written=self.written,
            dropped=self.dropped,
            lost=self.lost,
            errors=self.errors,
        )

    async def run(self, grace: float = 10.0) -> None:
        """Write until cancelled; then write what is left, within `grace` seconds."""
        try:
            while True:
                await self._gather()
                await self._write()
        finally:
            await self._finish(grace)

    async def _gather(self) -> None:
        """Take what waits, up to a batch; wait for a first one, but not beyond the next duty."""
        if not self._records:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_duty()):
                    self._take(await self._queue.get())
        if self._taken and not self._kept and self._queue.qsize() < BATCH:
            # A thread that is woken for each of them costs the loop more than the record does.
            await asyncio.sleep(_PAUSE_S)
        self._take_waiting()

    def _take_waiting(self) -> None:
        while len(self._taken) + len(self._records) < BATCH and not self._queue.empty():
            self._take(self._queue.get_nowait())

    def _take(self, item: _Item) -> None:
        self._bytes -= item.size
        self._taken.append(item.given)
        if item.kept is not None:
            self._kept.append(item.kept)
        self._room.set()

    def _until_duty(self) -> float | None:
        """Seconds until something is to be done even if nothing comes: a sync, or tidying up."""
        until_sync = self._until_sync()
        if not self._sink.is_open:
            return until_sync
        return TIDY_S if until_sync is None else min(TIDY_S, until_sync)

    def _until_sync(self) -> float | None:
        if self._unsynced_since is None:
            return None
        return max(0.0, self._unsynced_since + self._sync_s - time.monotonic())

    async def _write(self) -> None:
        self._busy = asyncio.ensure_future(asyncio.to_thread(self._work))
        # Shielded: a thread cannot be stopped, and no other may write while it does.
        await asyncio.shield(self._busy)
        if self._unsynced_since is None and not self._records:
            self._tell_kept()
        if self.problem is not None:
            await asyncio.sleep(self._retry_s)

    def _tell_kept(self) -> None:
        """Tell those who wait how it went: nothing is left to be tried."""
        for kept in self._kept:
            if kept.done():
                continue
            if self.problem is None and not self._has_lost:
                kept.set_result(None)
            else:
                kept.set_exception(RecordUnavailable("the exchange could not be recorded"))
        self._kept.clear()
        self._has_lost = False

    async def _finish(self, grace: float) -> None:
        # It is being obeyed; until Python 3.11.3 no timeout works in a task that is cancelled.
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                if self._busy is not None:
                    await asyncio.wait([self._busy])
                while self.waiting:
                    self._take_waiting()
                    await self._write()
                await asyncio.to_thread(self._close)
        self._drops.tell()
        if self.waiting:
            self.lost += self.waiting
            log.error("exchanges_lost", count=self.waiting, problem=self.problem)

    # ------------------------------------------------------------ in the thread

    def _work(self) -> None:
        """Write what was taken and sync if it is time; what could not be written stays."""
        try:
            self._convert()
            self._save()
            if self._unsynced_since is not None and (self._kept or self._until_sync() == 0):
                self._unsynced_since = None
                self._sink.sync()
            self._sink.tidy()
        except Exception as error:
            # Whatever a sink does, the next recordings have a right to be tried.
            self._note(error)
        else:
            self.problem = None

    def _convert(self) -> None:
        while self._taken:
            try:
                self._records.append(self._keeping(self._taken[0]))
            except OSError:
                raise
            except Exception:
                self._lose_one()
            self._taken.popleft()

    def _save(self) -> None:
        if not self._records:
            return
        self._unsynced_since = self._unsynced_since or time.monotonic()
        try:
            self._sink.write(self._records)
            self.written += len(self._records)
            self._records.clear()
        except OSError:
            raise
        except Exception:
            # One of them cannot be written. The others shall not suffer for it.
            self._save_singly()

    def _save_singly(self) -> None:
        while self._records:
            try:
                self._sink.write(self._records[:1])
                self.written += 1
            except OSError:
                raise
            except Exception:
                self._lose_one()
            del self._records[0]

    def _close(self) -> None:
        try:
            self._sink.close()
        except Exception as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        self.errors += 1
        self.problem = getattr(error, "strerror", None) or type(error).__name__
        log.error("record_failed", problem=self.problem, waiting=self.waiting)

    def _lose_one(self) -> None:
        self.lost += 1
        self._has_lost = True
        log.exception("exchange_lost")


def _wanted(given: Given) -> bool:
    return not isinstance(given, Recording) or (given.level != "off" and not given.is_kept)


def _size(given: Given) -> int:
    """About how many bytes it holds in memory."""
    match given:
        case Recording():
            return given.size
        case Shadowed():
            return 1024 + len(given.attempt.answer.text)
        case Feedback():
            return 1024


class _Drops:
    """Tells of dropped recordings, at most once a second."""

    def __init__(self) -> None:
        self._untold = 0
        self._told_at = float("-inf")

    def add(self) -> None:
        self._untold += 1
        if time.monotonic() - self._told_at >= 1:
            self.tell()

    def tell(self) -> None:
        """Log how many were dropped since the last time, if any."""
        if self._untold:
            log.warning("exchanges_dropped", count=self._untold)
            self._untold, self._told_at = 0, time.monotonic()
