import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.paired import difference
from proxy.protocol.evidence.sequential import (
    Tally,
    interval,
    log_capital,
    lower,
    p_value,
    pairs,
    share,
    upper,
)


@given(n=st.integers(1, 200), data=st.data())
@settings(max_examples=50)
def test_against_a_fair_coin_the_bets_are_robbins_mixture(n, data):
    # Robbins 1970: (n + 1) b(n, p, x) <= epsilon, ever, has a chance of at most epsilon; for
    # p = 1/2 its reciprocal is the mean capital of betting on both sides.
    hits = data.draw(st.integers(0, n))

    both = np.logaddexp(
        log_capital(share(hits, n), 0.5), log_capital(share(hits, n).mirrored(), -0.5)
    )

    expected = -np.log(n + 1) - binom.logpmf(hits, n, 0.5)
    assert both - np.log(2) == pytest.approx(expected, abs=1e-8)


def test_capital_is_a_fair_game_when_the_claim_is_true():
    # The mean over all ways in which ten pairs can turn out, of a true difference of -0.1.
    ways = [(first, second) for first in range(11) for second in range(11 - first)]

    mean = sum(
        multinomial.pmf([first, second, 10 - first - second], 10, [0.2, 0.3, 0.5])
        * np.exp(log_capital(pairs(first, second, 10), -0.1))
        for first, second in ways
    )

    assert mean == pytest.approx(1.0)


def test_it_is_wider_than_for_one_look_and_narrows():
    few, many = (interval(pairs(n // 20, n // 20, n)) for n in (200, 20_000))
    once = difference(10, 10, 200)

    assert few.low < once.low and once.high < few.high
    assert many.high - many.low < (few.high - few.low) / 5


@given(n=st.integers(1, 300), data=st.data())
@settings(max_examples=50)
def test_intervals_hold_the_estimate_and_agree_with_the_p_value(n, data):
    hits = data.draw(st.integers(0, n))
    found = interval(share(hits, n))

    assert found.low <= hits / n <= found.high
    assert 0.5 in found or p_value(share(hits, n), 0.5) <= 0.05


def test_one_sided_bounds_are_tighter():
    tally = share(180, 200)
    both = interval(tally)

    assert both.low < lower(tally) < 0.9 < upper(tally) < both.high


def test_the_mean_of_any_bounded_values_is_watched():
    values = np.random.default_rng(0).uniform(0.4, 0.8, 2000)

    found = interval(Tally(values.tolist()))

    assert 0.6 in found
    assert found.high - found.low < 0.05


def test_without_observations_nothing_is_excluded():
    assert interval(pairs(0, 0, 0)) == Interval(-1, 1)


def test_an_observation_outside_of_its_bounds_is_refused():
    with pytest.raises(ValueError, match="not between 0"):
        Tally([0.5, 1.5])


def test_as_many_times_the_pairs_narrow_it():
    tally = pairs(5, 2, 40)

    assert tally.times(3).n == 120
    assert interval(tally.times(3)).low > interval(tally).low
