"""Intervals that hold at every look: a mean of bounded observations, watched for as long as one
likes.

A gambler who bets on each next observation against the claim that the mean is m cannot, if the
claim is true, expect to gain: the chance that the capital ever reaches 1/alpha is at most alpha
(Ville). Capital is averaged over constant bets, each a share c of the most that cannot ruin, with c
even on (0, 1); for a coin and m = 1/2 that is Robbins' mixture. The interval holds the means that
have not been refuted.

What it takes: observations between `low` and `high`, each with the same mean given all before it.
It does not matter how many looks there are, nor what was decided upon them.

Sources: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting"
(JRSS B 86, 2024); H. Robbins, "Statistical methods related to the law of the iterated logarithm"
(1970); T. Cover, "Universal portfolios" (1991).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp

from proxy.protocol.evidence.intervals import Interval

_BETS = 128
"""Constant bets of the average. Chosen: up to 100 000 observations the next best one is near."""
_EDGE = 1e-6

_nodes, _weights = np.polynomial.legendre.leggauss(_BETS)
_SHARES: NDArray[np.float64] = (_nodes + 1) / 2
_LOG_WEIGHTS: NDArray[np.float64] = np.log(_weights / 2)


class Tally:
    """Observations between `low` and `high`, with how often each value was seen."""

    def __init__(
        self,
        values: Sequence[float],
        counts: Sequence[float] | None = None,
        *,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        """Raises ValueError for an observation outside of the bounds."""
        array = np.asarray(values, dtype=np.float64)
        if len(array) and not (low <= array.min() and array.max() <= high):
            raise ValueError(f"an observation is not between {low} and {high}")
        if counts is None:
            self.values, seen = np.unique(array, return_counts=True)
            self.counts = seen.astype(np.float64)
        else:
            self.values, self.counts = array, np.asarray(counts, dtype=np.float64)
        self.low, self.high = low, high

    @property
    def n(self) -> float:
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        return float(self.values @ self.counts / self.n)

    def times(self, factor: float) -> Tally:
        """As many times the observations, otherwise alike."""
        return Tally(
            self.values.tolist(), (self.counts * factor).tolist(), low=self.low, high=self.high
        )

    def mirrored(self) -> Tally:
        return Tally((-self.values).tolist(), self.counts.tolist(), low=-self.high, high=-self.low)


def share(hits: int, n: int) -> Tally:
    """Observations that are hits (1) or not (0)."""
    return Tally([0.0, 1.0], [n - hits, hits])


def pairs(only_first: float, only_second: float, n: float) -> Tally:
    """Pairs of which only the first is right (1), only the second (-1), or neither alone (0)."""
    rest = n - only_first - only_second
    return Tally([1.0, -1.0, 0.0], [only_first, only_second, rest], low=-1.0, high=1.0)


def log_capital(tally: Tally, mean: float) -> float:
    """Log of the capital of who bets that the mean is above `mean`, having started with 1."""
    bound = min(max(mean, tally.low + _EDGE), tally.high)
    bets = _SHARES / (bound - tally.low)
    gains = np.log1p(np.outer(bets, tally.values - bound)) @ tally.counts
    return float(logsumexp(gains + _LOG_WEIGHTS))


def p_value(tally: Tally, mean: float) -> float:
    """Always valid, two-sided: the chance of ever seeing less than this is at most this."""
    above, below = log_capital(tally, mean), log_capital(tally.mirrored(), -mean)
    return float(min(1.0, np.exp(-(np.logaddexp(above, below) - np.log(2)))))


def p_above(tally: Tally, mean: float) -> float:
    """Always valid, one-sided: of the claim that no observation's mean, given all before it, is
    above `mean`. The means may differ from observation to observation."""
    return float(min(1.0, np.exp(-log_capital(tally, mean)))) if tally.n > 0 else 1.0


def interval(tally: Tally, certainty: float = 0.95) -> Interval:
    """The means that no look so far, nor this one, had refuted if they were true."""
    if tally.n <= 0:
        return Interval(tally.low, tally.high)
    threshold = float(np.log(2 / (1 - certainty)))
    return Interval(_bound(tally, threshold), -_bound(tally.mirrored(), threshold))


def lower(tally: Tally, certainty: float = 0.95) -> float:
    """One-sided bound below the mean."""
    return _bound(tally, float(np.log(1 / (1 - certainty)))) if tally.n > 0 else tally.low


def upper(tally: Tally, certainty: float = 0.95) -> float:
    """One-sided bound above the mean."""
    return -lower(tally.mirrored(), certainty)


def _bound(tally: Tally, threshold: float) -> float:
    """The lowest mean against which betting has not reached the threshold: capital falls in it."""
    lowest, estimate = tally.low + _EDGE, tally.mean

    def excess(mean: float) -> float:
        return log_capital(tally, mean) - threshold

    if excess(lowest) <= 0:
        return tally.low
    return float(brentq(excess, lowest, max(estimate, lowest + _EDGE), xtol=1e-7))
