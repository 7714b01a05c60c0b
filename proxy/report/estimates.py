"""A figure with what it rests on: n, an interval for one look, and one for any number of looks."""

from __future__ import annotations

from statistics import fmean

import msgspec
import numpy as np

from proxy.protocol.evidence import bootstrap, intervals, paired, sequential
from proxy.protocol.evidence.clusters import Clustered, clustered, effective
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.sequential import Tally
from proxy.protocol.page.words import Unit


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """One figure."""

    name: str
    unit: Unit
    value: float | None
    """None where there is nothing to count."""
    n: int
    """Observations."""
    worth: float
    """Independent ones that they are worth: fewer where a conversation has several. Resampled
    figures draw whole conversations instead, and say n."""
    interval: Interval | None = None
    """At 95 %, for who looks once."""
    always: Interval | None = None
    """At 95 %, however often one looks; each conversation counts once."""
    bound: float | None = None
    """One-sided exact upper bound at 95 %, where the figure is a rate of something unwanted."""


class Observed(msgspec.Struct, frozen=True):
    """Observations, and the conversation of each."""

    values: list[float]
    conversations: list[str]

    @property
    def clusters(self) -> Clustered:
        return clustered(self.values, self.conversations)

    def tally(self, low: float, high: float) -> Tally:
        """The conversations' means, for betting."""
        return Tally(self.clusters.means, low=low, high=high)


def share(name: str, seen: Observed, *, unwanted: bool = False) -> Estimate:
    """A share of hits (1) among observations (0 or 1)."""
    if not seen.values:
        return Estimate(name=name, unit="share", value=None, n=0, worth=0)
    clusters = seen.clusters
    worth = effective(clusters)
    hits = clusters.mean * worth
    return Estimate(
        name=name,
        unit="share",
        value=clusters.mean,
        n=clusters.n,
        worth=worth,
        interval=intervals.wilson(hits, worth),
        always=sequential.interval(seen.tally(0, 1)),
        bound=intervals.upper(hits, worth) if unwanted else None,
    )


def mean_share(name: str, seen: Observed) -> Estimate:
    """A mean of scores between 0 and 1."""
    if not seen.values:
        return Estimate(name=name, unit="share", value=None, n=0, worth=0)
    clusters = seen.clusters
    return Estimate(
        name=name,
        unit="share",
        value=clusters.mean,
        n=clusters.n,
        worth=effective(clusters),
        interval=bootstrap.mean(seen.values, seen.conversations),
        always=sequential.interval(seen.tally(0, 1)),
    )


def difference(name: str, seen: Observed) -> Estimate:
    """A difference of shares, from pairs: 1 only the first is right, -1 only the second, 0 else."""
    if not seen.values:
        return Estimate(name=name, unit="points", value=None, n=0, worth=0)
    clusters = seen.clusters
    worth = effective(clusters)
    scale = worth / clusters.n
    first, second = (scale * seen.values.count(sign) for sign in (1, -1))
    return Estimate(
        name=name,
        unit="points",
        value=clusters.mean,
        n=clusters.n,
        worth=worth,
        interval=paired.difference(first, second, worth),
        always=sequential.interval(seen.tally(-1, 1)),
    )


def quantile(name: str, seen: Observed, share: float) -> Estimate:
    """Seconds below which a share of the observations lies."""
    if not seen.values:
        return Estimate(name=name, unit="seconds", value=None, n=0, worth=0)
    interval = bootstrap.quantile(seen.values, share, seen.conversations)
    value = float(np.quantile(seen.values, share, method="inverted_cdf"))
    return _resampled(name, "seconds", seen, value, interval)


def mean(name: str, seen: Observed, *, times: float = 1.0) -> Estimate:
    """The mean cost in dollars of so many times what was observed."""
    if not seen.values:
        return Estimate(name=name, unit="dollars", value=None, n=0, worth=0)
    costs = [value * times for value in seen.values]
    interval = bootstrap.mean(costs, seen.conversations)
    return _resampled(name, "dollars", seen, fmean(costs), interval)


def _resampled(name: str, unit: Unit, seen: Observed, value: float, interval: Interval) -> Estimate:
    return Estimate(
        name=name,
        unit=unit,
        value=value,
        n=len(seen.values),
        worth=len(seen.values),
        interval=interval,
    )
