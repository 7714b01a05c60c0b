import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.protocol.agreement import arguments_score, compare, matched
from proxy.protocol.exchange import Answer
from proxy.protocol.openai import FunctionCall, ToolCall

HELLO = Answer(text="Hello.")


def call(name: str, arguments: str = "{}") -> FunctionCall:
    return FunctionCall(name, arguments)


def calls(*made: FunctionCall) -> Answer:
    return Answer(tool_calls=[ToolCall(f"call-{n}", one) for n, one in enumerate(made)])


def test_same_calls_agree_whatever_their_order_and_number_forms():
    given = calls(call("find", '{"n":1,"city":"Rome"}'), call("book"))
    reference = calls(call("book", ""), call("find", '{"city": "Rome", "n": 1.0}'))

    agreement = compare(given, reference)

    assert (agreement.agrees, agreement.kind, agreement.score) == (True, "same", 1.0)


def test_the_same_call_twice_is_not_the_same_call_once():
    agreement = compare(calls(call("a"), call("a")), calls(call("a")))

    assert (agreement.agrees, agreement.kind, agreement.score) == (False, "other_tool", 0.5)


def test_strings_are_lenient_only_where_that_is_chosen():
    given, reference = (calls(call("f", f'{{"city":"{c}"}}')) for c in ("New York", "new-york"))

    assert compare(given, reference).kind == "other_arguments"
    assert compare(given, reference, "bfcl").kind == "same"


@pytest.mark.parametrize(
    ("given", "reference", "kind"),
    [
        (calls(call("a")), calls(call("b")), "other_tool"),
        (calls(call("a")), HELLO, "false_call"),
        (HELLO, calls(call("a")), "missed_call"),
        (Answer(), calls(call("a")), "missed_call"),
    ],
)
def test_calls_that_differ_score_nothing_and_say_how_they_differ(given, reference, kind):
    agreement = compare(given, reference)

    assert (agreement.agrees, agreement.kind, agreement.score) == (False, kind, 0.0)


def test_two_answers_that_call_nothing_agree_where_tools_were_offered():
    agreement = compare(HELLO, Answer(refusal="No."))

    assert (agreement.agrees, agreement.kind) == (True, "both_abstain")


def test_texts_are_comparable_only_when_identical():
    other = Answer(text="Hi.")

    assert compare(HELLO, HELLO, tools_offered=False).kind == "same"
    assert compare(HELLO, other, tools_offered=False).kind == "not_comparable"


@pytest.mark.parametrize("tools_offered", [True, False])
def test_answers_that_were_not_kept_are_not_comparable(tools_offered):
    agreement = compare(Answer(), Answer(), tools_offered=tools_offered)

    assert (agreement.agrees, agreement.kind) == (False, "not_comparable")


def test_the_score_is_matched_leaves_over_the_union_of_paths():
    given = '{"city":"Rome","day":{"from":1,"to":2},"extra":true}'
    reference = '{"city":"Rome","day":{"from":1,"to":3},"seats":2}'

    assert arguments_score(given, reference) == 2 / 5
    assert arguments_score("{}", "{}") == 1.0
    assert arguments_score("{", "{}") == 0.0


def test_calls_of_other_tools_are_never_matched():
    assert matched([call("a", '{"x":1}')], [call("b", '{"x":1}')]) == 0.0


def test_a_greedy_matching_would_be_worse():
    # The best single pair (2 of 3) leaves nothing for the others; the best matching has 1/3 + 1/1.
    given = [call("f", '{"a":1,"b":2}'), call("f", '{"a":1}')]
    reference = [call("f", '{"a":1,"b":3}'), call("f", '{"a":1,"b":2,"c":3}')]

    pairs = [[arguments_score(g.arguments, r.arguments) for r in reference] for g in given]

    assert (
        matched(given, reference) == max(pairs[0][0] + pairs[1][1], pairs[0][1] + pairs[1][0]) / 2
    )


numbered = st.lists(
    st.builds(
        lambda a, b, c: call("f", f'{{"a":{a},"b":{b},"c":{c}}}'),
        *([st.integers(0, 2)] * 3),
    ),
    min_size=1,
    max_size=5,
)


@given(given=numbered, reference=numbered)
@settings(deadline=None)
def test_no_matching_is_better(given, reference):
    few, many = sorted((given, reference), key=len)
    best = max(
        sum(arguments_score(g.arguments, r.arguments) for g, r in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )

    assert matched(given, reference) == pytest.approx(best / len(many))


def test_an_answer_with_very_many_calls_is_still_compared():
    given = [call("f", f'{{"n":{n},"odd":1}}') for n in range(128)]
    reference = [call("f", f'{{"n":{n},"odd":2}}') for n in reversed(range(128))]

    assert matched(given, reference) == pytest.approx(0.5)
