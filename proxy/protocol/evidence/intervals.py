"""Intervals of a share.

Sources: E. B. Wilson, "Probable inference" (1927); C. J. Clopper and E. S. Pearson (1934).
"""

from __future__ import annotations

from math import sqrt

import msgspec
from scipy.stats import beta, norm


class Interval(msgspec.Struct, frozen=True):
    """From `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(hits: float, n: float, certainty: float = 0.95) -> Interval:
    """Wilson's score interval of a share; (0, 1) where n is 0.

    `hits` and `n` may be fractions: of an effective number of observations (evidence.clusters).
    """
    if n <= 0:
        return Interval(0.0, 1.0)
    z = float(norm.ppf((1 + certainty) / 2))
    share = hits / n
    middle = share + z * z / (2 * n)
    reach = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    width = 1 + z * z / n
    return Interval(max(0.0, (middle - reach) / width), min(1.0, (middle + reach) / width))


def upper(hits: int, n: int, certainty: float = 0.95) -> float:
    """Exact one-sided upper bound of a share: about 3 / n where nothing was hit; 1 where n is 0."""
    return 1.0 if hits >= n else float(beta.ppf(certainty, hits + 1, n - hits))


def lower(hits: int, n: int, certainty: float = 0.95) -> float:
    """Exact one-sided lower bound of a share; 0 where n is 0."""
    return 0.0 if hits <= 0 else float(beta.ppf(1 - certainty, hits, n - hits + 1))
