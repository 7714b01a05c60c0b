"""Who is chosen of several that answered the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from tests.trainer.answers import answered, report
from trainer.choose import Option, choose, in_turn
from trainer.errors import GateError
from trainer.recipe import GateSettings

SETTINGS = GateSettings()


def option(name: str, right: Sequence[bool], **more: object) -> Option:
    answers = [answered(f"r{n}", right=is_right, **more) for n, is_right in enumerate(right)]
    return Option([report(name, answers)], (name,))


def first_wrong(count: int, of: int = 200) -> list[bool]:
    return [n >= count for n in range(of)]


def last_wrong(count: int, of: int = 200) -> list[bool]:
    return [n < of - count for n in range(of)]


def test_the_simplest_is_chosen_where_nothing_is_shown():
    choice = choose([option("geo-v8", first_wrong(12)), option("all-v3", last_wrong(8))], SETTINGS)

    assert (choice.chosen, choice.asks, choice.routes) == ("geo-v8", ("geo-v8",), "")
    assert choice.sentence.startswith("geo-v8 is the simplest that no other is shown to surpass")
    assert "-2.0 points beside all-v3" in choice.sentence


def test_no_difference_has_no_sign():
    choice = choose([option(name, first_wrong(8)) for name in ("geo-v8", "all-v3")], SETTINGS)

    assert "+0.0 points beside all-v3" in choice.sentence


def test_one_that_is_shown_to_be_right_more_often_is_chosen():
    choice = choose([option("geo-v8", first_wrong(40)), option("all-v3", last_wrong(8))], SETTINGS)

    assert choice.chosen == "all-v3"
    assert choice.sentence.startswith("all-v3 is right more often than every other")


def test_each_comparison_more_makes_it_harder_to_be_shown():
    geo, better = option("geo-v8", first_wrong(20)), option("all-v3", last_wrong(6))
    others = [option(f"all-v{n}", first_wrong(20)) for n in (4, 5)]

    alone, among = choose([geo, better], SETTINGS), choose([geo, *others, better], SETTINGS)

    assert (alone.chosen, among.chosen) == ("all-v3", "geo-v8")
    assert alone.comparisons[0].p < 0.05 < among.comparisons[2].p


def test_the_second_is_asked_where_the_first_ones_answer_is_invalid():
    first, second = option("geo-v8", first_wrong(40)), option("all-v3", first_wrong(0))
    broken = [
        msgspec.structs.replace(
            one, score=msgspec.structs.replace(one.score, json_valid=one.score.call_exact)
        )
        for one in first.reports[0].answers
    ]
    first = first._replace(reports=[report("geo-v8", broken)])

    both = in_turn(first, second)
    choice = choose([first, option("all-v2", first_wrong(40)), both], SETTINGS)

    (merged,) = both.reports
    assert merged.figures["call exact"].share == 1
    assert [one.seconds for one in merged.answers[38:42]] == [2, 2, 1, 1]
    assert (choice.chosen, choice.asks) == ("geo-v8, else all-v3", ("geo-v8", "all-v3"))
    assert "plan: [local, second, …]}" in choice.routes


def test_the_second_is_asked_where_the_first_is_less_sure_than_the_floor():
    first, second = option("geo-v8", first_wrong(200)), option("all-v3", first_wrong(0))
    sure = [
        msgspec.structs.replace(one, confidence=0.9 if n < 50 else 0.4)
        for n, one in enumerate(first.reports[0].answers)
    ]
    first = first._replace(reports=[report("geo-v8", sure)])

    both = in_turn(first, second, floor=0.5)

    assert both.reports[0].figures["call exact"].hits == 150
    assert "floor: 0.5" in choose([first, both], SETTINGS).routes


def test_text_has_no_floor():
    first = option("geo-v8", [True], must_call=False)
    unsure = [msgspec.structs.replace(one, confidence=0.1) for one in first.reports[0].answers]
    first = first._replace(reports=[report("geo-v8", unsure)])

    both = in_turn(first, option("all-v3", [False], must_call=False), floor=0.5)

    assert both.reports[0].answers == unsure


@pytest.mark.parametrize("asked", [199, 201])
def test_other_rows_are_no_comparison(asked):
    with pytest.raises(GateError, match="all-v3 and geo-v8 answered different rows"):
        choose(
            [option("geo-v8", first_wrong(9)), option("all-v3", first_wrong(9, asked))], SETTINGS
        )


def test_other_sides_are_not_asked_in_turn():
    other = option("all-v3", [True])
    other = other._replace(reports=[report("all-v3", other.reports[0].answers, "unseen")])

    with pytest.raises(GateError, match="answered different sides"):
        in_turn(option("geo-v8", [True]), other)
