import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.paired import difference, mcnemar, non_inferior


def test_mcnemar_is_as_published():
    # Airway reactivity before and after transplantation (Bentur et al. 2009), as in M. Fagerland,
    # S. Lydersen and P. Laake, "Recommended tests and confidence intervals for paired binomial
    # proportions" (2014): 1 and 7 of 21.
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)


def test_tangos_interval_is_as_published():
    # The same data and source.
    found = difference(1, 7, 21)

    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_where_no_pair_tells_them_apart_nothing_is_shown():
    assert mcnemar(0, 0) == 1.0
    found = difference(0, 0, 30)
    assert found.low == pytest.approx(-found.high) and 0.1 < found.high < 0.2
    assert difference(0, 0, 0) == Interval(-1, 1)


@given(n=st.integers(1, 2000), data=st.data())
def test_the_interval_holds_the_estimate_and_turns_with_the_sides(n, data):
    first = data.draw(st.integers(0, n))
    second = data.draw(st.integers(0, n - first))

    found, turned = difference(first, second, n), difference(second, first, n)

    assert -1 <= found.low <= (first - second) / n + 1e-9
    assert (first - second) / n - 1e-9 <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), abs=1e-6)


@pytest.mark.parametrize(("n", "expected"), [(20, False), (2000, True)])
def test_more_pairs_without_a_difference_show_non_inferiority(n, expected):
    verdict = non_inferior(n // 20, n // 20, n, margin=0.03)

    assert bool(verdict) is expected
    assert verdict.decidable is expected


def test_what_is_worse_by_more_than_the_margin_is_decidable_and_not_shown():
    verdict = non_inferior(10, 300, 1000, margin=0.03)

    assert not verdict
    assert verdict.decidable
