"""Intervals by resampling, for what has no formula: medians, and means over conversations.

Clusters are drawn, not observations: all of a conversation's, or none. Percentile intervals, with a
fixed seed: the same observations have the same interval.
Source: B. Efron, "Bootstrap methods: another look at the jackknife" (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from proxy.protocol.evidence.intervals import Interval

RESAMPLES = 2000
"""Chosen: the ends of a 95 % interval then rest on 50 resamples each."""

Floats = NDArray[np.float64]


def median_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    certainty: float = 0.95,
) -> Interval:
    """Interval of the median of the pairs' differences, first less second; (nan, nan) for none."""
    pairs = zip(first, second, strict=True)
    return quantile([a - b for a, b in pairs], 0.5, clusters, certainty)


def quantile(
    values: Sequence[float],
    share: float,
    clusters: Sequence[Hashable] | None = None,
    certainty: float = 0.95,
) -> Interval:
    """Interval of the value below which `share` of the observations lie."""
    ordered, owners = _sorted(values, clusters)

    def of(weights: Floats) -> float:
        sums = np.cumsum(weights[owners])
        return float(ordered[np.searchsorted(sums, share * sums[-1])])

    return _interval(of, owners, certainty)


def mean(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    certainty: float = 0.95,
) -> Interval:
    """Interval of the mean of observations that come in clusters."""
    ordered, owners = _sorted(values, clusters)
    sums = np.bincount(owners, weights=ordered) if len(ordered) else np.zeros(0)
    sizes = np.bincount(owners) if len(ordered) else np.zeros(0)
    return _interval(lambda weights: float(weights @ sums / (weights @ sizes)), owners, certainty)


def _sorted(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[Floats, NDArray[np.intp]]:
    """Observations in rising order, and the number of each one's cluster."""
    numbers: dict[Hashable, int] = {}
    named = range(len(values)) if clusters is None else clusters
    owners = np.array([numbers.setdefault(one, len(numbers)) for one in named], dtype=np.intp)
    array = np.asarray(values, dtype=np.float64)
    order = np.argsort(array, kind="stable")
    return array[order], owners[order]


def _interval(
    statistic: Callable[[Floats], float], owners: NDArray[np.intp], certainty: float
) -> Interval:
    if not len(owners):
        return Interval(float("nan"), float("nan"))
    random = np.random.default_rng(0)
    k = int(owners.max()) + 1
    even = np.full(k, 1 / k)
    drawn = [statistic(random.multinomial(k, even).astype(float)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - certainty) / 2, (1 + certainty) / 2])
    return Interval(float(low), float(high))
