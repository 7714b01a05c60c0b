"""The five figures of structured generation, over completions that are nearly right."""

from __future__ import annotations

import pytest

from tests.trainer.examples import row, weather
from trainer.scorers.structured import five, token_f1

ASKED = row(weather(), question="Rain in Oslo?")
RIGHT = '{"arguments": {"city": "Oslo"}, "query": "Rain in Oslo?", "tool_name": "weather"}'


def test_the_right_object_is_right_in_every_way():
    found = five(ASKED, f"  {RIGHT}\n")

    assert found.json_strict and found.json_lenient
    assert found.tool_name and found.tool_name_normal
    assert (found.arguments, found.arguments_all) == (1.0, True)
    assert (found.query, found.query_exact) == (1.0, True)
    assert found.exact


@pytest.mark.parametrize("text", [f"Sure: {RIGHT}", f"```json\n{RIGHT}\n```", f"{{x {RIGHT}"])
def test_an_object_among_words_is_valid_leniently_only(text):
    found = five(ASKED, text)

    assert (found.json_strict, found.json_lenient, found.tool_name) == (False, True, True)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "No.", "{" * 5000, "[" * 100_000])
def test_what_holds_no_object_is_not_valid(text):
    found = five(ASKED, text)

    assert not (found.json_strict or found.json_lenient or found.exact)
    assert (found.arguments, found.query) == (0.0, 0.0)


def test_a_fourth_key_is_not_exact():
    found = five(ASKED, RIGHT[:-1] + ', "why": 1}')

    assert found.arguments_all and found.query_exact and not found.exact


def test_a_name_is_normal_where_only_a_dot_differs():
    asked = row(weather().__class__("geo.find", "{}"))
    text = '{"arguments": {}, "query": "Rain in Oslo?", "tool_name": "geo_find"}'

    found = five(asked, text)

    assert (found.tool_name, found.tool_name_normal) == (False, True)


def test_arguments_that_differ_in_case_agree_but_are_not_exact():
    found = five(ASKED, RIGHT.replace('"Oslo"', '"OSLO"'))

    assert (found.arguments_all, found.query_exact, found.exact) == (True, True, False)


@pytest.mark.parametrize(
    ("given", "right", "share"),
    [
        ("rain in oslo?", "Rain  in Oslo?", 1.0),
        ("Rain", "Rain in Oslo?", 0.5),
        ("", "Rain", 0.0),
        ("rain rain", "Rain", 2 / 3),
        ("", "", 1.0),
    ],
)
def test_a_query_is_preserved_by_the_share_of_its_words(given, right, share):
    assert token_f1(given, right) == pytest.approx(share)
