import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from proxy.protocol.evidence.intervals import Interval, lower, upper, wilson


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_as_published(hits, n, low, high):
    found = wilson(hits, n)

    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_is_scipys(n, data):
    hits = data.draw(st.integers(0, n))
    theirs = binomtest(hits, n).proportion_ci(0.9, method="wilson")

    found = wilson(hits, n, 0.9)

    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(n=st.integers(1, 500), data=st.data())
def test_exact_bounds_are_scipys(n, data):
    hits = data.draw(st.integers(0, n))

    less = binomtest(hits, n, alternative="less").proportion_ci(method="exact")
    greater = binomtest(hits, n, alternative="greater").proportion_ci(method="exact")

    assert upper(hits, n) == pytest.approx(less.high)
    assert lower(hits, n) == pytest.approx(greater.low)


def test_nothing_in_n_is_bounded_by_three_in_n():
    assert upper(0, 1000) == pytest.approx(3 / 1000, rel=0.01)


def test_without_observations_nothing_is_excluded():
    assert wilson(0, 0) == Interval(0, 1)
    assert (lower(0, 0), upper(0, 0)) == (0, 1)


def test_an_effective_number_may_be_a_fraction():
    assert wilson(10, 20).low < wilson(10.5, 21).low < wilson(11, 22).low
