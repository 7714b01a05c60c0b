"""A bounded queue in front of a sink: a request pays for putting its recording in, and no more.

Recordings are turned into exchanges, written and synced in a thread, one batch at a time. A sink
that fails is tried again until it works; meanwhile the queue fills, and what does not fit is
dropped and counted. No request ever waits for the record, or fails for it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from proxy.protocol.exchange import Exchange
from proxy.recording import Recording
from proxy.sinks.base import Sink

BATCH = 256
"""Exchanges that are written at once."""

log = structlog.get_logger()


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
    ) -> None:
        """`sync_s`: what a power cut may cost; `retry_s`: the pause after an error of the sink."""
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
        self._queue: asyncio.Queue[tuple[int, Recording]] = asyncio.Queue(max_waiting)
        self._max_bytes = max_waiting_bytes
        self._bytes = 0
        self._taken: list[Recording] = []
        self._exchanges: list[Exchange] = []
        self._unsynced_since: float | None = None
        self._busy: asyncio.Future[None] | None = None
        self._drops = _Drops()

    def put(self, recording: Recording) -> None:
        """Keep this recording; never waits, never raises."""
        size = recording.size
        if self._queue.full() or self._bytes + size > self._max_bytes:
            self.dropped += 1
            self._drops.add()
            return
        self._bytes += size
        self._queue.put_nowait((size, recording))

    @property
    def waiting(self) -> int:
        """Recordings that are not written yet."""
        return self._queue.qsize() + len(self._taken) + len(self._exchanges)

    async def run(self, grace: float = 10.0) -> None:
        """Write until cancelled; then write what is left, within `grace` seconds."""
        try:
            while True:
                await self._gather()
                await self._write()
        finally:
            await self._finish(grace)

    async def _gather(self) -> None:
        """Take what waits, up to a batch; wait for a first one, but not beyond the next sync."""
        if not self._exchanges:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_sync()):
                    self._take(*await self._queue.get())
        self._take_waiting()

    def _take_waiting(self) -> None:
        while len(self._taken) + len(self._exchanges) < BATCH and not self._queue.empty():
            self._take(*self._queue.get_nowait())

    def _take(self, size: int, recording: Recording) -> None:
        self._bytes -= size
        self._taken.append(recording)

    def _until_sync(self) -> float | None:
        if self._unsynced_since is None:
            return None
        return max(0.0, self._unsynced_since + self._sync_s - time.monotonic())

    async def _write(self) -> None:
        self._busy = asyncio.ensure_future(asyncio.to_thread(self._work))
        # Shielded: a thread cannot be stopped, and no other may write while it does.
        await asyncio.shield(self._busy)
        if self.problem is not None:
            await asyncio.sleep(self._retry_s)

    async def _finish(self, grace: float) -> None:
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
        self._convert()
        try:
            self._save()
            if self._unsynced_since is not None and self._until_sync() == 0:
                self._unsynced_since = None
                self._sink.sync()
        except Exception as error:
            # Whatever a sink does, the next recordings have a right to be tried.
            self._note(error)
        else:
            self.problem = None

    def _convert(self) -> None:
        for recording in self._taken:
            try:
                self._exchanges.append(recording.exchange())
            except Exception:
                self._lose_one()
        self._taken.clear()

    def _save(self) -> None:
        if not self._exchanges:
            return
        self._unsynced_since = self._unsynced_since or time.monotonic()
        try:
            self._sink.write(self._exchanges)
            self._exchanges.clear()
        except OSError:
            raise
        except Exception:
            # One of them cannot be written. The others shall not suffer for it.
            self._save_singly()

    def _save_singly(self) -> None:
        while self._exchanges:
            try:
                self._sink.write(self._exchanges[:1])
            except OSError:
                raise
            except Exception:
                self._lose_one()
            del self._exchanges[0]

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
        log.exception("exchange_lost")


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
