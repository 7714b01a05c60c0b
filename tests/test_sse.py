"""Server-sent events survive any chunking, and a hostile stream has bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import EventDecoder, EventTooLarge, encode

event = st.binary(min_size=1).filter(lambda data: b"\r" not in data)


def decoded(*chunks: bytes) -> list[bytes]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@given(events=st.lists(event), cuts=st.lists(st.integers(min_value=0), max_size=20))
def test_events_survive_any_chunking(events: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(encode, events))
    bounds = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    chunks = [wire[a:b] for a, b in pairwise(bounds)]

    assert decoded(*chunks) == events


@given(wire=st.lists(st.sampled_from([b"data", b":", b" ", b"x", b"\r", b"\n", b"\r\n", b""])))
def test_what_is_read_does_not_depend_on_the_chunks(wire: list[bytes]) -> None:
    assert decoded(*wire) == decoded(b"".join(wire))


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": ping\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"data\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: torn", [b"a"]),
        (b"data: torn\n", []),
    ],
)
def test_the_standard_is_followed(wire: bytes, events: list[bytes]) -> None:
    assert decoded(wire) == events


def test_a_line_end_that_a_chunk_cuts_in_two_is_one() -> None:
    assert decoded(b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n") == [b"a\nb"]


def test_a_line_end_in_the_data_starts_a_new_field() -> None:
    assert encode(b"a\r\nb\rc\nd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"


def test_an_event_that_never_ends_is_given_up() -> None:
    decoder = EventDecoder(max_event=100)

    with pytest.raises(EventTooLarge, match="100 bytes"):
        decoder.feed(b"data: " + b"x" * 100)


def test_an_event_of_many_lines_is_bounded_as_a_whole() -> None:
    decoder = EventDecoder(max_event=100)

    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: 123\n" * 11)


def test_the_bound_is_for_each_event_alone() -> None:
    decoder = EventDecoder(max_event=100)

    assert len(decoder.feed(b"data: 123\n\n" * 50)) == 50
