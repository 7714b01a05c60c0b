"""Two answers to each question, each right or wrong: which is right more often.

Only pairs of which one is right and the other is not tell them apart: `only_first` and
`only_second` of `n`. The difference is the first's share of right answers less the second's.

Sources: Q. McNemar (1947), in its exact form; T. Tango, "Equivalence test and confidence interval
for the difference in proportions for the paired-sample design" (Statistics in Medicine 17, 1998).
"""

from __future__ import annotations

from math import sqrt

import msgspec
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from proxy.protocol.evidence.intervals import Interval

_EDGE = 1e-9


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of the claim that both are right equally often."""
    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


def difference(
    only_first: float, only_second: float, n: float, certainty: float = 0.95
) -> Interval:
    """Tango's score interval of the difference, within -1 and 1; all of it where n is 0.

    The counts may be fractions: of an effective number of pairs (evidence.clusters).
    """
    if n <= 0:
        return Interval(-1.0, 1.0)
    z = float(norm.ppf((1 + certainty) / 2))
    return Interval(
        _root(only_first, only_second, n, z, -1 + _EDGE),
        _root(only_first, only_second, n, -z, 1 - _EDGE),
    )


def _root(only_first: float, only_second: float, n: float, z: float, edge: float) -> float:
    """The difference at which the score is `z`, between the estimate and `edge`."""
    estimate = (only_first - only_second) / n
    if abs(estimate - edge) < 2 * _EDGE:
        return float(round(edge))

    def excess(delta: float) -> float:
        return _score(only_first, only_second, n, delta) - z

    if excess(edge) * z < 0:
        return float(round(edge))
    return float(brentq(excess, edge, estimate, xtol=1e-10))


def _score(only_first: float, only_second: float, n: float, delta: float) -> float:
    """Tango's statistic of the claim that the difference is `delta`."""
    b = (2 * n - only_first + only_second) * delta - only_first - only_second
    c = -only_second * delta * (1 - delta)
    # The likeliest share of pairs that only the second gets right, under the claim.
    second = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * second + delta * (1 - delta))
    distance = only_first - only_second - n * delta
    return distance / sqrt(max(variance, _EDGE * _EDGE))


class NonInferiority(msgspec.Struct, frozen=True):
    """Whether the first is at most `margin` worse than the second; true only if that is shown."""

    margin: float
    low: float
    """One-sided lower bound of the difference, at 1 - alpha."""
    high: float
    """One-sided upper bound of the difference, at 1 - alpha."""

    def __bool__(self) -> bool:
        return self.low > -self.margin

    @property
    def decidable(self) -> bool:
        """Whether the pairs show it, or show that it is not so."""
        return bool(self) or self.high < -self.margin


def non_inferior(
    only_first: float, only_second: float, n: float, margin: float, alpha: float = 0.05
) -> NonInferiority:
    """Whether the first's share of right answers is within `margin` of the second's, or above."""
    bounds = difference(only_first, only_second, n, 1 - 2 * alpha)
    return NonInferiority(margin, bounds.low, bounds.high)
