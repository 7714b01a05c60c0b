"""Reading an answer as it comes: however it is cut into pieces, the client gets the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.backends.base import Call, Text
from proxy.backends.reading import Reader
from proxy.errors import InvalidAnswer
from proxy.protocol.formats.base import Format
from proxy.protocol.formats.hermes import Hermes
from proxy.protocol.formats.structured import Structured
from proxy.protocol.openai import FunctionCall

WEATHER = FunctionCall("weather", '{"city": "Oslo"}')
CALL = Hermes().answer([WEATHER])
OBJECT = Structured().answer([WEATHER])

fragments = st.sampled_from(
    [CALL, OBJECT, "<tool_call>", "</tool_call>", "<tool", "_call>", "<", '{"tool', "a", "b", "ab"]
)
answers = st.lists(fragments, max_size=6).map("".join)
formats = st.sampled_from([None, Hermes(), Structured()])
stops = st.lists(st.sampled_from(["", "a", "b", "ab", "ba", "aab", "<tool", "Oslo"]), max_size=3)


def pieces(text: str, cuts: Sequence[int]) -> list[str]:
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(bounds)]


def read(
    pieces: Sequence[str], format: Format | None, stops: Sequence[str] = ()
) -> tuple[str, list[FunctionCall] | str, bool]:
    """All text, all calls or why there are none, and whether a stop string ended it."""
    reader = Reader(format, stops)
    events = [event for piece in pieces for event in reader.feed(piece)]
    text = "".join(event.text for event in events if isinstance(event, Text))
    try:
        ending = reader.end()
    except InvalidAnswer as error:
        return text, error.reason, reader.stopped
    text += "".join(event.text for event in ending if isinstance(event, Text))
    return text, [e.call.function for e in ending if isinstance(e, Call)], reader.stopped


# ---------------------------------------------------------------- laws


@given(answer=answers, cuts=st.lists(st.integers(min_value=0), max_size=20), format=formats)
def test_an_answer_is_read_the_same_however_it_is_cut(answer, cuts, format):
    assert read(pieces(answer, cuts), format) == read([answer], format)


@given(answers, st.lists(st.integers(min_value=0), max_size=20), formats, stops)
def test_a_stop_string_ends_an_answer_at_the_same_place_however_it_is_cut(
    answer, cuts, format, stops
):
    assert read(pieces(answer, cuts), format, stops) == read([answer], format, stops)


@given(answer=answers, stops=stops)
def test_no_text_holds_a_stop_string(answer, stops):
    text, _, _ = read(list(answer), None, stops)

    assert not any(stop in text for stop in stops if stop)


@given(answer=st.text(), cuts=st.lists(st.integers(min_value=0), max_size=20))
def test_without_a_format_all_is_text(answer, cuts):
    assert read(pieces(answer, cuts), None) == (answer, [], False)


# ---------------------------------------------------------------- text


def test_text_goes_on_at_once():
    assert Reader(Hermes()).feed("It rains") == [Text("It rains")]


def test_only_what_may_begin_a_call_is_held_back():
    reader = Reader(Hermes())

    assert reader.feed("It rains <to") == [Text("It rains ")]
    assert reader.feed("morrow") == [Text("<tomorrow")]


def test_only_what_may_begin_a_stop_string_is_held_back():
    reader = Reader(None, ["END"])

    assert reader.feed("The E") == [Text("The ")]
    assert reader.feed("arth") == [Text("Earth")]


def test_what_was_held_back_is_given_at_the_end():
    reader = Reader(Hermes())
    reader.feed("1 <")

    assert reader.end() == [Text("<")]


def test_an_empty_answer_has_no_events():
    assert read(["", ""], Hermes()) == ("", [], False)


# ---------------------------------------------------------------- stops


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it():
    assert read(["It rains. END It snows."], None, ["END"]) == ("It rains. ", [], True)


def test_a_stop_string_in_two_pieces_is_seen():
    assert read(["It rains. E", "N", "D It snows."], None, ["END"]) == ("It rains. ", [], True)


def test_a_stop_string_that_begins_twice_is_seen():
    assert read(list("so aaab"), None, ["aab"]) == ("so a", [], True)


def test_what_comes_after_a_stop_string_is_not_read():
    reader = Reader(Hermes(), ["END"])
    reader.feed("END")

    assert (reader.feed("more" + CALL), reader.end()) == ([], [])


def test_the_first_of_two_stop_strings_ends_the_answer():
    assert read(["one two three"], None, ["three", "two"]) == ("one ", [], True)


def test_a_stop_string_inside_a_call_does_not_cut_the_call():
    assert read([CALL], Hermes(), ["Oslo"]) == ("", [WEATHER], False)


def test_a_stop_string_before_a_call_leaves_it_out():
    assert read(["Oslo " + CALL], Hermes(), ["Oslo"]) == ("", [], True)


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(("format", "call"), [(Hermes(), CALL), (Structured(), OBJECT)])
def test_a_call_that_comes_letter_by_letter_is_a_call(format, call):
    assert read(list(call), format) == ("", [WEATHER], False)


def test_an_opening_tag_in_two_pieces_begins_a_call():
    assert read(["Well. <tool_", CALL.removeprefix("<tool_")], Hermes()) == (
        "Well. ",
        [WEATHER],
        False,
    )


def test_nothing_of_a_call_is_told_before_the_answer_is_whole():
    reader = Reader(Hermes())

    assert reader.feed(CALL) == []
    assert [event.call.function for event in reader.end()] == [WEATHER]


def test_several_calls_are_told_in_order():
    time = FunctionCall("time", "{}")

    assert read(list(Hermes().answer([WEATHER, time])), Hermes()) == ("", [WEATHER, time], False)


@pytest.mark.parametrize("format", [Hermes(), Structured()])
def test_a_broken_call_is_no_answer(format):
    broken = format.opening + ' "weather", "argum'

    assert read(list(broken), format) == ("", "broken_call", False)


def test_a_call_is_text_where_no_format_is_asked_for():
    assert read([CALL], None) == (CALL, [], False)
