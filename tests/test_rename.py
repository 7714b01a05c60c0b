from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import rename as renaming
from proxy.rename import rename, rename_content, rename_events, whole_events


def test_only_the_model_changes():
    answer = b'{"id":"x","model":"gpt-4o-2024","big":123456789012345678901234567890,"f":1.10}'

    assert rename(answer, "mine") == (
        b'{"id":"x","model":"mine","big":123456789012345678901234567890,"f":1.10}'
    )


@pytest.mark.parametrize("answer", [b"", b"[1]", b"<html>", b'{"a":{"model":"x"}}', b"\xff"])
def test_what_has_no_model_stays_as_it_is(answer):
    assert rename(answer, "mine") == answer


def test_every_event_of_a_stream_is_renamed():
    events = b'data: {"model":"a","n":1}\n\n: ping\n\ndata: {"model":"a"}\n\ndata: [DONE]\n\n'

    assert rename_events(events, "mine") == (
        b'data: {"model":"mine","n":1}\n\n: ping\n\ndata: {"model":"mine"}\n\ndata: [DONE]\n\n'
    )


@pytest.mark.parametrize(("longest", "named"), [(13, b"b"), (12, b"a")])
async def test_answer_that_is_too_long_to_be_held_passes_as_it_is(
    monkeypatch: pytest.MonkeyPatch, longest: int, named: bytes
):
    monkeypatch.setattr(renaming, "_LONGEST", longest)
    pieces = [b'{"mod', b'el":"a"', b"}"]

    given = [piece async for piece in rename_content("application/json", each(pieces), "b")]

    assert b"".join(given) == b'{"model":"%b"}' % named


@given(st.lists(st.sampled_from([b"data: 1", b"\n", b"\r\n", b"\n\n", b"x"])))
async def test_cutting_at_events_loses_and_changes_nothing(pieces):
    cut = [piece async for piece in whole_events(each(pieces))]

    assert b"".join(cut) == b"".join(pieces)


@given(st.lists(st.sampled_from([b"data: 1", b"\n", b"\n\n", b"x"])))
async def test_all_pieces_but_the_last_end_with_an_event(pieces):
    cut = [piece async for piece in whole_events(each(pieces))]

    assert all(piece.endswith(b"\n\n") for piece in cut[:-1])


async def each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
