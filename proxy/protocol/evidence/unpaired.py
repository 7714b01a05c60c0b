"""Two groups that answered different questions: which is right more often.

Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions"
(Statistics in Medicine 17, 1998), method 10: from the two Wilson intervals.
"""

from __future__ import annotations

from math import hypot

from scipy.stats import fisher_exact

from proxy.protocol.evidence.intervals import Interval, wilson


def difference(
    first: tuple[float, float], second: tuple[float, float], certainty: float = 0.95
) -> Interval:
    """Interval of the first's share less the second's; each group is (hits, n).

    The counts may be fractions: of an effective number of observations (evidence.clusters).
    """
    (a, n), (b, m) = first, second
    if n <= 0 or m <= 0:
        return Interval(-1.0, 1.0)
    one, other = wilson(a, n, certainty), wilson(b, m, certainty)
    p, q = a / n, b / m
    return Interval(
        p - q - hypot(p - one.low, other.high - q), p - q + hypot(one.high - p, q - other.low)
    )


def fisher(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Exact two-sided p-value of the claim that both groups' shares are equal."""
    (a, n), (b, m) = first, second
    return float(fisher_exact([[a, n - a], [b, m - b]]).pvalue) if n and m else 1.0
