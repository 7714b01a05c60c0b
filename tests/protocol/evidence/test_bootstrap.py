import math

import numpy as np
import pytest

from proxy.protocol.evidence.bootstrap import mean, median_difference, quantile, ratio


def test_the_mean_of_many_has_the_interval_of_the_normal():
    values = np.random.default_rng(0).normal(3, 2, 400)
    error = values.std(ddof=1) / 20

    found = mean(values.tolist())

    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.05)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.05)


def test_clusters_are_drawn_whole():
    values = [float(number) for number in range(20) for _ in range(10)]
    owners = [number for number in range(20) for _ in range(10)]

    alone, together = mean(values), mean(values, owners)

    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_median_of_differences_is_of_pairs():
    first = [float(number) for number in range(100)]
    second = [number + 1 for number in first]

    found = median_difference(first, second)

    assert (found.low, found.high) == (-1.0, -1.0)


def test_the_median_has_the_interval_of_its_order_statistics():
    values = [float(number) for number in range(1, 201)]

    found = quantile(values, 0.5)

    # Ranks 86 and 115, by the binomial distribution.
    assert found.low == pytest.approx(86, abs=2) and found.high == pytest.approx(115, abs=2)


def test_a_ratio_is_of_sums():
    found = ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])

    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


def test_the_same_observations_have_the_same_interval():
    values = [0.3, 0.1, 0.9, 0.4]

    assert mean(values) == mean(values)


def test_without_observations_there_is_no_interval():
    assert math.isnan(mean([]).low) and math.isnan(quantile([], 0.5).high)
    assert math.isnan(ratio([], []).low)
