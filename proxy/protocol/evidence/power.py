"""How many pairs a question takes, and how small a difference some pairs can show.

Normal approximation for paired shares; `discordance` is the share of pairs of which only one side
is right. Source: J. Nam, "Establishing equivalence of two treatments and sample size requirements
in matched-pairs design" (Biometrics 53, 1997), at the difference that is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf, sqrt

from scipy.stats import norm

MOST = 1024
"""How many times as many observations are thought of at most."""


def pairs_needed(
    discordance: float,
    margin: float,
    difference: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Pairs that show, with probability `power`, that the first is at most `margin` worse.

    Infinite where it is worse by the margin or more.
    """
    distance = margin + difference
    if distance <= 0:
        return inf
    z = float(norm.ppf(1 - alpha) + norm.ppf(power))
    return ceil(z * z * max(discordance - difference**2, 0.0) / distance**2)


def smallest_difference(
    n: int, discordance: float = 0.2, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest difference, to either side, that `n` pairs show with probability `power`."""
    z = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    share = z * z / n if n else inf
    return min(1.0, sqrt(share * discordance / (1 + share))) if n else 1.0


def times_needed(decides: Callable[[float], bool]) -> float:
    """How many times as many observations, otherwise alike, would decide; infinite above MOST.

    `decides` says whether that many times the present counts do; 1 where the present ones do.
    """
    if decides(1.0):
        return 1.0
    if not decides(float(MOST)):
        return inf
    low, high = 1.0, float(MOST)
    while high / low > 1.02:
        middle = sqrt(low * high)
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
