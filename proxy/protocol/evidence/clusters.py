"""Observations of one conversation are alike: how many independent ones they are worth.

Source: E. L. Korn and B. I. Graubard, "Confidence intervals for proportions with small expected
number of positive counts estimated from survey data" (Survey Methodology 24, 1998): an effective
number of observations, from the variance between clusters and its degrees of freedom, takes the
place of the real one in intervals that are made for independent observations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.stats import binom, t


class Clustered(msgspec.Struct, frozen=True):
    """Observations (n,), and sums of them by cluster (k,)."""

    n: int
    variance: float
    """Of the observations."""
    sums: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def means(self) -> tuple[float, ...]:
        """The mean of each cluster (k,), in the order of their first observations."""
        return tuple(s / k for s, k in zip(self.sums, self.sizes, strict=True))

    @property
    def mean(self) -> float:
        """Of all observations; not a number where there are none."""
        return sum(self.sums) / self.n if self.n else float("nan")


def clustered(values: Sequence[float], clusters: Iterable[Hashable]) -> Clustered:
    """Observations by the cluster that each belongs to."""
    sums: dict[Hashable, float] = {}
    sizes: dict[Hashable, int] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0) + 1
    variance = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
    return Clustered(len(values), variance, tuple(sums.values()), tuple(sizes.values()))


def effective(of: Clustered, certainty: float = 0.95) -> float:
    """Independent observations that these are worth: between 1 and n, n if no cluster has two.

    Where all observations are equal, nothing shows how alike a cluster's are: then a cluster counts
    as one.
    """
    k = len(of.sizes)
    if k == of.n or k < 2:
        return float(k)
    between = _variance_of_mean(of)
    if of.variance == 0 or between == 0:
        return float(k)
    tails = (1 + certainty) / 2
    freedom = (t.ppf(tails, of.n - 1) / t.ppf(tails, k - 1)) ** 2
    return float(min(of.n, max(1.0, of.variance / between * freedom)))


def _variance_of_mean(of: Clustered) -> float:
    k = len(of.sizes)
    residues = np.array(of.sums) - of.mean * np.array(of.sizes)
    return float(k / (k - 1) * np.sum(residues**2) / of.n**2)


def sign_flip(sums: Sequence[int]) -> float:
    """Exact two-sided p-value of the claim that a cluster's sum is as likely positive as negative.

    With clusters of one pair each, of which only one side is right, it is McNemar's exact test.
    """
    sizes = Counter(abs(one) for one in sums if one)
    observed = abs(sum(sums))
    chances: NDArray[np.float64] = np.ones(1)
    for size, count in sizes.items():
        chances = _flipped(chances, size, count)
    reach = len(chances) // 2
    distances = np.abs(np.arange(-reach, reach + 1))
    return float(min(1.0, chances[distances >= observed].sum()))


def _flipped(chances: NDArray[np.float64], size: int, count: int) -> NDArray[np.float64]:
    """Chances of each sum, with `count` more signs of `size` each; both centred on 0."""
    signs = np.zeros(2 * size * count + 1)
    signs[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
    sums: NDArray[np.float64] = fftconvolve(chances, signs)
    return np.maximum(sums, 0.0)
