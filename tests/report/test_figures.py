import pytest

from proxy.report.figures import figures
from proxy.report.pairs import Contest, Pair, Paired, pairs
from tests.report.examples import find, told
from tests.report.examples import pair as records_of


def pair(id: str, cloud, local, right=None, **fields: object) -> Pair:
    exchange, shadow, *shown = records_of(id, cloud, local, right, **fields)
    paired = Paired(exchange, shadow, *shown)
    (found,) = pairs(iter([paired]), Contest(baseline="azure", candidate="local"), {}, {})
    return found


PAIRS = [
    pair("1", find("Rome"), find("Rome"), find("Rome")),
    pair("2", find("Rome"), find("Rome", 3), find("Rome")),
    pair("3", find("Rome"), find("Rome", 3), find("Rome", 3)),
    pair("4", find("Rome"), told("Where?"), find("Oslo")),
    pair("5", told("No."), told("No?")),
    pair("6", told("No."), find("Rome")),
]


def test_pairs_are_counted_by_kind():
    found = figures(PAIRS)

    assert (found.pairs, found.conversations) == (6, 6)
    assert found.kinds == {
        "other_arguments": 2,
        "same": 1,
        "missed_call": 1,
        "both_abstain": 1,
        "false_call": 1,
    }
    assert (found.agreement.value, found.agreement.n) == (pytest.approx(2 / 6), 6)


def test_arguments_are_scored_where_both_call():
    arguments = figures(PAIRS).arguments

    assert (arguments.value, arguments.n) == (pytest.approx((1 + 0.5 + 0.5) / 3), 3)


def test_accuracy_is_paired_and_against_demonstrations_only():
    accuracy = figures(PAIRS).accuracy

    assert accuracy is not None
    assert (accuracy.both, accuracy.only_baseline, accuracy.only_candidate) == (1, 1, 1)
    assert accuracy.neither == 1
    assert (accuracy.candidate.value, accuracy.difference.value) == (0.5, 0.0)
    assert accuracy.p == 1.0


def test_without_demonstrations_there_is_no_accuracy():
    assert figures(PAIRS[4:]).accuracy is None


def test_false_and_missed_calls_are_held_against_the_baseline_with_an_upper_bound():
    false, missed = figures(PAIRS).calls

    assert (false.value, false.n) == (0.5, 2)
    assert (missed.value, missed.n) == (0.25, 4)
    assert false.bound is not None and 0.9 < false.bound < 1


def test_times_are_of_pairs():
    *_, apart = figures(PAIRS).times

    assert apart.value == pytest.approx(-0.3)
    assert apart.interval is not None and apart.interval.low == pytest.approx(-0.3)


def test_costs_are_of_those_that_have_a_price():
    baseline, candidate = figures(PAIRS).costs

    assert (baseline.value, baseline.n) == (pytest.approx(1.0), 6)
    assert (candidate.value, candidate.n) == (None, 0)


def test_pairs_of_one_conversation_are_worth_less():
    alike = [pair(f"{n}", find("Rome"), find("Rome", 3), conversation="one") for n in range(5)]
    others = [pair(f"o{n}", find("Rome"), find("Rome")) for n in range(5)]

    agreement = figures([*alike, *others]).agreement

    assert agreement.n == 10
    assert agreement.worth < 8


def test_no_pairs_are_no_figures():
    found = figures([])

    assert found.agreement.value is None and found.agreement.interval is None
