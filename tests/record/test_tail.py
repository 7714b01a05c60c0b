"""What is written is seen as it comes, and once."""

from __future__ import annotations

from pathlib import Path

from proxy.protocol.segments import Encoder, Segment
from proxy.record.tail import follow, last
from tests.record.examples import exchange, write


def test_last_records_of_all_segments(tmp_path: Path):
    write(tmp_path, exchange("a"), exchange("b"))
    write(tmp_path, exchange("c"))

    assert [one.id for one in last(tmp_path, 2)] == ["b", "c"]
    assert [one.id for one in last(tmp_path, 9)] == ["a", "b", "c"]
    assert last(tmp_path, 0) == []


def test_what_is_new_is_followed_across_segments(tmp_path: Path):
    write(tmp_path, exchange("before"))
    segment = Segment(tmp_path)
    following = follow(tmp_path)

    segment.append(Encoder().encode([exchange("a")]))
    first = next(following)
    whole = Encoder().encode([exchange("b")])
    segment.append(whole[:20])
    write(tmp_path, exchange("c"))
    second = next(following)
    segment.append(whole[20:])
    third = next(following)

    assert [first.id, second.id, third.id] == ["a", "c", "b"]
