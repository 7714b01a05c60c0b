"""Judging a call: what counts as the right tool, the right arguments, and a call too many."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from proxy.protocol.formats.base import Parsed, call, dumps
from proxy.protocol.openai import Function, FunctionCall
from tests.protocol.formats.calls import objects
from tests.trainer.examples import function, row, weather
from trainer.scorers.toolcall import Score, refused, score

ANY = Function("f", "Takes anything.", msgspec.Raw(b'{"type": "object"}'))
NOTHING = Parsed("Nothing fits.")


def answer(*calls: FunctionCall) -> Parsed:
    return Parsed("", tuple(call(c.name, c.arguments) for c in calls))


def judged(right: object, given: object, **accepted: list[object]) -> Score:
    """The score of a call with arguments `given` where `right` ones were asked for."""
    asked = row(FunctionCall("f", dumps(right)), functions=(ANY,), accepted=accepted or None)
    return score(asked, answer(FunctionCall("f", dumps(given))))


# ---------------------------------------------------------------- the metrics


def test_the_right_call_is_right_in_every_way():
    assert score(row(weather()), answer(weather())) == Score(
        must_call=True,
        called=True,
        json_valid=True,
        tool_name=True,
        call_match=True,
        call_exact=True,
        bfcl=True,
        arguments=1.0,
    )


def test_the_right_tool_with_other_arguments_is_the_right_tool_only():
    judged = score(row(weather("Oslo")), answer(weather("Bergen")))

    assert (judged.tool_name, judged.call_match, judged.call_exact) == (True, False, False)
    assert judged.json_valid


def test_another_tool_is_wrong_but_may_be_valid():
    offered = (function("weather", city="string"), function("tides", city="string"))
    asked = row(weather(), functions=offered)

    judged = score(asked, answer(FunctionCall("tides", '{"city": "Oslo"}')))

    assert (judged.called, judged.json_valid) == (True, True)
    assert not (judged.tool_name or judged.call_match or judged.call_exact)


def test_arguments_that_break_the_schema_are_not_valid():
    judged = score(row(weather()), answer(FunctionCall("weather", '{"town": "Oslo"}')))

    assert (judged.json_valid, judged.tool_name, judged.call_exact) == (False, True, False)


def test_a_tool_that_is_not_offered_is_not_valid():
    assert not score(row(weather()), answer(FunctionCall("tides", "{}"))).json_valid


def test_names_are_equal_to_the_letter():
    assert not score(row(weather()), answer(FunctionCall("Weather", '{"city": "Oslo"}'))).tool_name


def test_a_missed_call_is_valid_text_and_nothing_else():
    assert score(row(weather()), NOTHING) == Score(
        must_call=True,
        called=False,
        json_valid=True,
        tool_name=False,
        call_match=False,
        call_exact=False,
        fault="missed_call",
    )


def test_where_nothing_must_be_called_nothing_is_right():
    assert score(row(), NOTHING) == Score(
        must_call=False,
        called=False,
        json_valid=True,
        tool_name=True,
        call_match=True,
        call_exact=True,
        bfcl=True,
        arguments=1.0,
    )


def test_where_nothing_must_be_called_a_call_is_false():
    assert score(row(), answer(weather())) == Score(
        must_call=False,
        called=True,
        json_valid=True,
        tool_name=False,
        call_match=False,
        call_exact=False,
        fault="false_call",
    )


def test_two_calls_are_not_the_one_that_is_right():
    judged = score(row(weather()), answer(weather(), weather()))

    assert (judged.called, judged.tool_name, judged.call_exact) == (True, False, False)


def test_two_valid_calls_are_valid():
    assert score(row(weather()), answer(weather(), weather())).json_valid


# ---------------------------------------------------------------- broken answers


def test_a_broken_call_is_a_call_that_is_not_valid():
    judged = score(row(weather()), Parsed("", broken='{"tool_name": "wea'))

    assert (judged.called, judged.json_valid, judged.call_exact) == (True, False, False)


def test_a_broken_call_where_nothing_must_be_called_is_a_false_call():
    judged = score(row(), Parsed("", broken='{"tool_name": "wea'))

    assert (judged.called, judged.json_valid, judged.call_exact) == (True, False, False)


@pytest.mark.parametrize("arguments", ["", "{", "Oslo", '{"city": }', "[" * 5000], ids=len)
def test_arguments_that_are_no_json_are_not_valid_and_match_nothing(arguments):
    judged = score(row(weather()), answer(FunctionCall("weather", arguments)))

    assert (judged.json_valid, judged.tool_name) == (False, True)
    assert not (judged.call_match or judged.call_exact)


@pytest.mark.parametrize("arguments", ["[]", "null", "1", '"Oslo"'])
def test_arguments_that_are_no_object_are_not_valid_and_match_nothing(arguments):
    judged = score(row(weather()), answer(FunctionCall("weather", arguments)))

    assert not (judged.json_valid or judged.call_match or judged.call_exact)


# ---------------------------------------------------------------- equal values


@given(objects)
def test_a_value_is_exactly_itself(right):
    assert judged(right, right).call_exact


@pytest.mark.parametrize(
    ("right", "given"),
    [(1, 1.0), (2.0, 2), ([1, 2], [1.0, 2.0]), ({"a": {"b": 1}}, {"a": {"b": 1.0}})],
)
def test_numbers_are_equal_by_value(right, given):
    assert judged({"x": right}, {"x": given}).call_exact


@pytest.mark.parametrize(
    ("right", "given"),
    [
        (True, 1),
        (1, True),
        (False, 0),
        (0, None),
        ("1", 1),
        ("", None),
        ([True], [1]),
        ({"a": True}, {"a": 1}),
        ([], {}),
    ],
)
def test_values_of_other_types_are_not_equal(right, given):
    found = judged({"x": right}, {"x": given})

    assert not (found.call_exact or found.call_match)


@pytest.mark.parametrize(
    ("right", "given"),
    [([1, 2], [2, 1]), ([1, 2], [1]), ([1], [1, 1]), ([{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}])],
)
def test_lists_are_equal_in_order_and_length(right, given):
    found = judged({"x": right}, {"x": given})

    assert not (found.call_exact or found.call_match)


def test_the_order_of_keys_says_nothing():
    assert judged({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}).call_exact


@pytest.mark.parametrize(
    ("right", "given"),
    [({"a": 1}, {}), ({}, {"a": 1}), ({"a": {"b": 1}}, {"a": {}}), ({"a": 1}, {"b": 1})],
)
def test_an_argument_more_or_less_is_not_equal(right, given):
    found = judged(right, given)

    assert not (found.call_exact or found.call_match)


# ---------------------------------------------------------------- leniency


@pytest.mark.parametrize(
    "given", ["new york, ny", "New York NY", "NEW-YORK_NY", "New.York/NY", "new*york^ny"]
)
def test_a_match_overlooks_case_space_and_marks_that_exactness_does_not(given):
    found = judged({"x": "New York, NY"}, {"x": given})

    assert (found.call_match, found.call_exact) == (True, False)


def test_a_match_overlooks_which_quotation_marks():
    assert judged({"x": "it's"}, {"x": 'it"s'}).call_match


def test_a_match_does_not_overlook_letters():
    assert not judged({"x": "New York"}, {"x": "Newark"}).call_match


def test_any_accepted_value_matches_and_only_the_first_is_exact():
    found = judged({"unit": "C"}, {"unit": "celsius"}, unit=["C", "celsius"])

    assert (found.call_match, found.call_exact) == (True, False)


def test_a_value_that_is_not_accepted_does_not_match():
    assert not judged({"unit": "C"}, {"unit": "kelvin"}, unit=["C", "celsius"]).call_match


def test_an_optional_argument_may_be_left_out():
    found = judged({"city": "Oslo", "days": 1}, {"city": "Oslo"}, city=["Oslo"], days=[1, ""])

    assert (found.call_match, found.call_exact) == (True, False)


def test_an_optional_argument_may_be_given():
    found = judged({"city": "Oslo"}, {"city": "Oslo", "days": 1}, city=["Oslo"], days=[1, ""])

    assert (found.call_match, found.call_exact) == (True, False)


def test_an_optional_argument_with_another_value_does_not_match():
    given = {"city": "Oslo", "days": 2}

    assert not judged({"city": "Oslo"}, given, city=["Oslo"], days=[1, ""]).call_match


def test_a_required_argument_may_not_be_left_out():
    assert not judged({"city": "Oslo"}, {}, city=["Oslo"]).call_match


def test_an_argument_that_is_not_accepted_does_not_match():
    assert not judged({"city": "Oslo"}, {"city": "Oslo", "days": 1}, city=["Oslo"]).call_match


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        ({"from": "a", "to": "b"}, True),
        ({"from": "A", "to": "c"}, True),
        ({"from": "a"}, True),
        ({"to": "b"}, False),
        ({"from": "x", "to": "b"}, False),
        ({"from": "a", "via": "d"}, False),
    ],
)
def test_an_object_inside_is_accepted_by_the_same_rules(given, matches):
    accepted = [{"from": ["a"], "to": ["b", "c", ""]}]

    found = judged({"trip": {"from": "a", "to": "b"}}, {"trip": given}, trip=accepted)

    assert found.call_match is matches


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        ([{"n": 1}, {"n": 2}], True),
        ([{"n": 1}, {"n": 3}], True),
        ([{"n": 2}, {"n": 1}], False),
        ([{"n": 1}], False),
    ],
)
def test_objects_in_a_list_are_accepted_by_the_same_rules(given, matches):
    accepted = [[{"n": [1]}, {"n": [2, 3]}]]

    assert judged({"all": [{"n": 1}, {"n": 2}]}, {"all": given}, all=accepted).call_match is matches


def test_true_is_not_accepted_for_one():
    assert not judged({"days": 1}, {"days": True}, days=[1]).call_match


def test_one_and_one_point_nought_are_accepted_for_each_other():
    assert judged({"days": 1}, {"days": 1.0}, days=[1]).call_match


# ---------------------------------------------------------------- several calls


CITIES = ("Oslo", "Bergen", "Narvik")
SEVERAL = row(*map(weather, CITIES))


def test_several_calls_are_right_in_any_order():
    found = score(SEVERAL, answer(*map(weather, CITIES[::-1])))

    assert (found.tool_name, found.call_exact, found.call_match, found.bfcl) == (True,) * 4
    assert found.arguments == 1.0


@pytest.mark.parametrize("cities", [("Oslo", "Oslo", "Narvik"), CITIES[:2], (*CITIES, "Oslo")])
def test_each_right_call_needs_one_of_its_own(cities):
    found = score(SEVERAL, answer(*map(weather, cities)))

    assert not (found.call_exact or found.call_match or found.bfcl)


def test_arguments_agree_by_the_share_of_their_leaves():
    right = {"a": 1, "b": {"c": "New York", "d": [1, 2]}}
    given = {"a": 1, "b": {"c": "new york", "d": [1, 3]}, "e": None}

    assert judged(right, given).arguments == 3 / 5


@given(objects)
def test_all_of_a_value_agrees_with_itself(right):
    assert judged(right, right).arguments == 1.0


@pytest.mark.parametrize(("right", "given"), [({"a": True}, {"a": 1}), ({"a": []}, {"a": {}})])
def test_leaves_of_other_types_do_not_agree(right, given):
    assert judged(right, given).arguments == 0.0


def test_arguments_of_a_wrong_tool_do_not_count():
    assert score(row(weather()), answer(FunctionCall("tides", '{"city": "Oslo"}'))).arguments == 0.0


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (weather("Bergen"), "wrong_value"),
        (FunctionCall("tides", "{}"), "wrong_tool"),
        (FunctionCall("weather", "{}"), "missing_argument"),
    ],
)
def test_what_is_wrong_is_told_in_a_word(given, fault):
    assert score(row(weather()), answer(given)).fault == fault


def test_an_error_in_place_of_an_answer_is_wrong_whatever_was_asked():
    must, none = refused(row(weather())), refused(row())

    assert (must.called, none.called) == (False, True)
    assert not (must.call_exact or none.call_exact or none.json_valid)
