"""Every sink keeps what it is given, in order; segments rotate and survive errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import SUFFIX, read
from proxy.sinks.base import Sink
from proxy.sinks.memory import MemorySink
from proxy.sinks.segments import SegmentSink
from tests.protocol.test_segments import exchange


def from_memory(sink: Sink, directory: Path) -> list[Exchange]:
    assert isinstance(sink, MemorySink)
    return sink.exchanges


def from_segments(sink: Sink, directory: Path) -> list[Exchange]:
    return list(read(directory))


SINKS: dict[str, tuple[Callable[[Path], Sink], Callable[[Sink, Path], list[Exchange]]]] = {
    "memory": (lambda directory: MemorySink(), from_memory),
    "segments": (SegmentSink, from_segments),
}


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_keeps_exchanges_in_order(name: str, tmp_path: Path) -> None:
    make, kept = SINKS[name]
    sink = make(tmp_path)

    sink.write([exchange("a"), exchange("b")])
    sink.sync()
    sink.write([exchange("c")])
    sink.close()

    assert [one.id for one in kept(sink, tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_that_got_nothing_closes(name: str, tmp_path: Path) -> None:
    make, kept = SINKS[name]
    sink = make(tmp_path)

    sink.sync()
    sink.close()

    assert kept(sink, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    sink = SegmentSink(tmp_path, segment_bytes=1)

    sink.write([exchange("a")])
    sink.write([exchange("b")])
    sink.close()

    assert len(segments(tmp_path)) == 2
    assert [one.id for one in read(tmp_path)] == ["a", "b"]


def test_two_sinks_share_a_directory(tmp_path: Path) -> None:
    one, other = SegmentSink(tmp_path), SegmentSink(tmp_path)

    one.write([exchange("a")])
    other.write([exchange("b")])
    one.write([exchange("c")])

    assert sorted(found.id for found in read(tmp_path)) == ["a", "b", "c"]


def test_a_disk_that_is_full_for_a_while_costs_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SegmentSink(tmp_path)
    sink.write([exchange("a")])

    with monkeypatch.context() as full:
        full.setattr(os, "write", _fails)
        with pytest.raises(OSError, match="No space left"):
            sink.write([exchange("b")])
        with pytest.raises(OSError, match="No space left"):
            sink.write([exchange("b")])
    sink.write([exchange("b")])

    assert [one.id for one in read(tmp_path)] == ["a", "b"]
    assert len(segments(tmp_path)) == 2


def test_a_sync_that_fails_is_told_and_begins_a_new_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SegmentSink(tmp_path)
    sink.write([exchange("a")])

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _fails)
        with pytest.raises(OSError, match="No space left"):
            sink.sync()
    sink.write([exchange("b")])

    assert len(segments(tmp_path)) == 2


def test_a_sync_reaches_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = SegmentSink(tmp_path)
    sink.write([exchange("a")])
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    sink.sync()
    sink.sync()

    assert len(synced) == 1


def test_a_segment_that_somebody_removed_is_told_and_followed_by_another(tmp_path: Path) -> None:
    directory = tmp_path / "record"
    sink = SegmentSink(directory)
    sink.write([exchange("a")])
    shutil.rmtree(directory)

    with pytest.raises(FileNotFoundError):
        sink.write([exchange("b")])
    sink.write([exchange("b")])

    assert [one.id for one in read(directory)] == ["b"]


def test_a_sync_of_what_somebody_removed_fails(tmp_path: Path) -> None:
    sink = SegmentSink(tmp_path)
    sink.write([exchange("a")])
    segments(tmp_path)[0].unlink()

    with pytest.raises(FileNotFoundError):
        sink.sync()


def _fails(*_: object) -> int:
    raise OSError(28, "No space left on device")
