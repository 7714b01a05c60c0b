"""Recordings reach the sink, whatever the disk does; requests never notice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event as ThreadEvent

import pytest
from structlog.testing import capture_logs

from proxy.backends.base import Finish, Text
from proxy.protocol.exchange import Exchange
from proxy.protocol.openai import Usage, parse_request
from proxy.protocol.segments import read
from proxy.recorder import Recorder
from proxy.recording import Recording
from proxy.sinks.memory import MemorySink
from proxy.sinks.segments import SegmentSink

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def recording(id: str) -> Recording:
    made = Recording(
        id=id,
        request_id="req-1",
        tenant="t",
        caller="c",
        domain="d",
        route="r",
        request=parse_request(BODY),
        body=BODY,
    )
    with made.attempt("primary", "local") as tape:
        tape.hear(Text("hello"))
        tape.hear(Finish(reason="stop", usage=Usage.of(1, 1)))
    made.close(200)
    return made


def ids(exchanges: Sequence[Exchange]) -> list[str]:
    return [exchange.id for exchange in exchanges]


class FaultySink(MemorySink):
    """Fails as it is told to, and counts its syncs."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.poison: str | None = None
        self.may_write = ThreadEvent()
        self.may_write.set()
        self.began = ThreadEvent()
        self.overlapped = False
        self.tries = 0
        self.syncs = 0
        self.is_closed = False

    def write(self, exchanges: Sequence[Exchange]) -> None:
        self.overlapped |= self.began.is_set() and not self.may_write.is_set()
        self.began.set()
        self.may_write.wait(10)
        self.tries += 1
        if self.error is not None:
            raise self.error
        if self.poison in ids(exchanges):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        super().write(exchanges)

    def sync(self) -> None:
        self.syncs += 1

    def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def running(recorder: Recorder, grace: float = 5.0) -> AsyncIterator[None]:
    task = asyncio.create_task(recorder.run(grace))
    await asyncio.sleep(0)  # a task that is cancelled before its first step never takes one
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, which no event tells; not for ever."""
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("it never was")


FULL = OSError(28, "No space left on device")


async def test_recordings_reach_the_sink_in_order() -> None:
    sink = MemorySink()
    recorder = Recorder(sink)

    async with running(recorder):
        for number in range(1000):
            recorder.put(recording(str(number)))

    assert ids(sink.exchanges) == [str(number) for number in range(1000)]
    assert (recorder.dropped, recorder.lost) == (0, 0)


async def test_what_waits_is_written_before_the_recorder_ends() -> None:
    sink = FaultySink()
    recorder = Recorder(sink)

    async with running(recorder):
        recorder.put(recording("a"))

    assert ids(sink.exchanges) == ["a"]
    assert sink.is_closed


async def test_a_full_queue_drops_counts_and_tells_once_a_second() -> None:
    recorder = Recorder(MemorySink(), max_waiting=2)

    with capture_logs() as logs:
        for number in range(5):
            recorder.put(recording(str(number)))

    assert (recorder.waiting, recorder.dropped) == (2, 3)
    assert [(line["event"], line["count"]) for line in logs] == [("exchanges_dropped", 1)]


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    size = recording("a").size
    recorder = Recorder(MemorySink(), max_waiting_bytes=2 * size)

    for number in range(3):
        recorder.put(recording(str(number)))
    async with running(recorder):
        await eventually(lambda: recorder.waiting == 0)
        recorder.put(recording("later"))

    assert recorder.dropped == 1


async def test_an_error_of_the_disk_is_retried_until_it_is_over() -> None:
    sink = FaultySink()
    sink.error = FULL
    recorder = Recorder(sink, retry_s=0.01)

    async with running(recorder):
        recorder.put(recording("a"))
        with capture_logs() as logs:
            await eventually(lambda: sink.tries >= 3)
        recorder.put(recording("b"))
        assert recorder.problem == "No space left on device"
        sink.error = None
        await eventually(lambda: recorder.waiting == 0)
        assert recorder.problem is None

    assert ids(sink.exchanges) == ["a", "b"]
    assert recorder.errors >= 2
    assert recorder.lost == 0
    assert {line["event"] for line in logs} == {"record_failed"}


async def test_while_the_disk_fails_the_queue_fills_and_drops() -> None:
    sink = FaultySink()
    sink.error = FULL
    recorder = Recorder(sink, max_waiting=300, retry_s=0.01)

    async with running(recorder, grace=0.1):
        for number in range(1000):
            recorder.put(recording(str(number)))
            await asyncio.sleep(0)
        assert recorder.waiting <= 300 + 256

    assert recorder.dropped + recorder.lost == 1000


async def test_what_cannot_be_written_within_the_grace_is_lost_and_told() -> None:
    sink = FaultySink()
    sink.error = FULL
    recorder = Recorder(sink, retry_s=0.01)

    with capture_logs() as logs:
        async with running(recorder, grace=0.1):
            recorder.put(recording("a"))

    assert recorder.lost == 1
    assert logs[-1]["event"] == "exchanges_lost"


async def test_one_exchange_that_cannot_be_written_costs_no_other() -> None:
    sink = FaultySink()
    sink.poison = "b"
    recorder = Recorder(sink)

    with capture_logs():
        for id in ("a", "b", "c"):
            recorder.put(recording(id))
        async with running(recorder):
            await eventually(lambda: recorder.waiting == 0)

    assert ids(sink.exchanges) == ["a", "c"]
    assert recorder.lost == 1


async def test_one_recording_that_cannot_be_read_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = MemorySink()
    recorder = Recorder(sink)
    broken = recording("b")
    monkeypatch.setattr(broken, "exchange", lambda: 1 / 0)

    with capture_logs() as logs:
        for one in (recording("a"), broken, recording("c")):
            recorder.put(one)
        async with running(recorder):
            await eventually(lambda: recorder.waiting == 0)

    assert ids(sink.exchanges) == ["a", "c"]
    assert recorder.lost == 1
    assert [line["event"] for line in logs] == ["exchange_lost"]


async def test_a_slow_disk_never_holds_the_loop_up() -> None:
    sink = FaultySink()
    sink.may_write.clear()
    recorder = Recorder(sink)

    async with running(recorder):
        recorder.put(recording("a"))
        await asyncio.to_thread(sink.began.wait, 5)
        recorder.put(recording("b"))
        await asyncio.sleep(0)
        assert sink.exchanges == []
        sink.may_write.set()

    assert ids(sink.exchanges) == ["a", "b"]


async def test_a_cancel_during_a_write_neither_loses_nor_doubles() -> None:
    sink = FaultySink()
    sink.may_write.clear()
    recorder = Recorder(sink)

    task = asyncio.create_task(recorder.run(5))
    recorder.put(recording("a"))
    await asyncio.to_thread(sink.began.wait, 5)
    recorder.put(recording("b"))
    task.cancel()
    await asyncio.sleep(0.05)
    sink.may_write.set()
    await asyncio.wait([task])

    assert not sink.overlapped
    assert ids(sink.exchanges) == ["a", "b"]


async def test_what_was_written_is_synced_when_it_is_time_even_if_nothing_follows() -> None:
    sink = FaultySink()
    recorder = Recorder(sink, sync_s=0.05)

    async with running(recorder):
        recorder.put(recording("a"))
        await eventually(lambda: sink.syncs > 0)

    assert sink.syncs == 1


async def test_a_write_is_not_synced_before_it_is_time() -> None:
    sink = FaultySink()
    recorder = Recorder(sink, sync_s=60)

    async with running(recorder):
        recorder.put(recording("a"))
        await eventually(lambda: recorder.waiting == 0)

    assert sink.syncs == 0


async def test_a_read_only_directory_fails_no_request(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    recorder = Recorder(SegmentSink(blocked / "record"), retry_s=0.01)

    async with running(recorder, grace=0.1):
        recorder.put(recording("a"))
        await eventually(lambda: recorder.problem is not None)
        assert recorder.problem == "Not a directory"

    assert recorder.lost == 1


# ---------------------------------------------------------------- kill -9

WRITER = """
import asyncio, sys
from pathlib import Path
from proxy.recorder import Recorder
from proxy.sinks.segments import SegmentSink
from tests.test_recorder import recording

async def main():
    recorder = Recorder(SegmentSink(Path(sys.argv[1]), segment_bytes=20_000))
    task = asyncio.create_task(recorder.run())
    number = 0
    while True:
        recorder.put(recording(str(number)))
        number += 1
        await asyncio.sleep(0.001)
        if recorder.waiting == 0:
            print(number, flush=True)   # all before this number have been given to the disk

asyncio.run(main())
"""


def test_a_killed_process_leaves_all_that_was_written_and_nothing_torn(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [int(next(writer.stdout)) for _ in range(100)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += map(int, writer.stdout)

    found = [int(exchange.id) for exchange in read(tmp_path)]

    assert found == list(range(len(found)))
    assert len(found) >= acknowledged[-1]
    assert len(list(tmp_path.iterdir())) > 1
