"""How often intervals and verdicts are right, over many pairs of backends whose truth is known.

python -m tests.report.simulations 2000
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.protocol.evidence import bootstrap, intervals, paired, sequential
from proxy.protocol.evidence.clusters import clustered, effective
from proxy.protocol.evidence.intervals import Interval
from proxy.report.estimates import Observed, difference, share

Outcomes = NDArray[np.int64]


class Truth(NamedTuple):
    """Two backends: shares of pairs in which only one is right, and how alike conversations are."""

    only_first: float
    only_second: float
    each: int = 1
    """Pairs of a conversation."""
    alike: float = 0.0
    """Probability that a pair has the outcome of its conversation's first one."""

    @property
    def difference(self) -> float:
        return self.only_first - self.only_second


def outcomes(truth: Truth, n: int, random: np.random.Generator) -> Outcomes:
    """1 where only the first is right, -1 where only the second is, 0 else: (n,)."""
    rest = 1 - truth.only_first - truth.only_second
    chances = [truth.only_first, truth.only_second, rest]
    drawn = random.choice([1, -1, 0], size=n, p=chances)
    firsts = np.repeat(drawn[:: truth.each], truth.each)[:n]
    return np.where(random.random(n) < truth.alike, firsts, drawn)


def covered(truth: Truth, n: int, runs: int) -> dict[str, float]:
    """Share of runs in which each interval of the report holds the truth."""
    random, hits = np.random.default_rng(1), Counter[str]()
    conversations = [f"{number // truth.each}" for number in range(n)]
    for _ in range(runs):
        seen = outcomes(truth, n, random)
        agree = difference("", Observed(seen.astype(float).tolist(), conversations))
        same = share("", Observed((seen == 0).astype(float).tolist(), conversations))
        agreement = 1 - truth.only_first - truth.only_second
        for name, interval, value in (
            ("difference", agree.interval, truth.difference),
            ("difference, every look", agree.always, truth.difference),
            ("agreement", same.interval, agreement),
            ("agreement, every look", same.always, agreement),
        ):
            hits[name] += interval is not None and value in interval
    return {name: count / runs for name, count in hits.items()}


def uncorrected(truth: Truth, n: int, runs: int) -> float:
    """Coverage of the interval that takes pairs of a conversation for independent ones."""
    random, hits = np.random.default_rng(1), 0
    for _ in range(runs):
        seen = outcomes(truth, n, random)
        first, second = int((seen == 1).sum()), int((seen == -1).sum())
        hits += truth.difference in paired.difference(first, second, n)
    return hits / runs


def medians_covered(n: int, runs: int) -> float:
    """Share of runs in which the interval of the median difference of times holds the truth."""
    random, hits = np.random.default_rng(2), 0
    for _ in range(runs):
        slow, fast = random.lognormal(0, 0.5, n), random.lognormal(0, 0.5, n)
        hits += 0.0 in bootstrap.median_difference(slow.tolist(), fast.tolist())
    return hits / runs


def looks(truth: Truth, days: int, a_day: int, runs: int) -> Iterator[tuple[Outcomes, list[int]]]:
    """Runs, each with how many pairs there were on each day."""
    random = np.random.default_rng(3)
    for _ in range(runs):
        yield outcomes(truth, days * a_day, random), [a_day * day for day in range(1, days + 1)]


class Stopped(NamedTuple):
    """What became of looking every day until the interval excludes no difference."""

    always: float
    """Share of runs that stopped, by the always-valid interval."""
    once: float
    """By the interval that is made for one look."""
    pairs: float
    """Median number of pairs at the stop, of the always-valid one; all where it never stopped."""


def stopped(truth: Truth, days: int, a_day: int, runs: int) -> Stopped:
    """Look every day, and stop as soon as the difference is shown."""
    always, once, pairs = 0, 0, []
    for seen, counts in looks(truth, days, a_day, runs):
        at = next((n for n in counts if not _holds(_always(seen[:n]), 0.0)), None)
        always += at is not None
        once += any(not _holds(_once(seen[:n]), 0.0) for n in counts)
        pairs.append(at or counts[-1])
    return Stopped(always / runs, once / runs, float(np.median(pairs)))


def _always(seen: Outcomes) -> Interval:
    tally = sequential.pairs(int((seen == 1).sum()), int((seen == -1).sum()), len(seen))
    return sequential.interval(tally)


def _once(seen: Outcomes) -> Interval:
    return paired.difference(int((seen == 1).sum()), int((seen == -1).sum()), len(seen))


def _holds(interval: Interval, value: float) -> bool:
    return value in interval


def worth_of(truth: Truth, n: int) -> float:
    """What n clustered observations are worth, on average over ten runs."""
    random = np.random.default_rng(4)
    conversations = [f"{number // truth.each}" for number in range(n)]
    found = [
        effective(clustered(outcomes(truth, n, random).astype(float).tolist(), conversations))
        for _ in range(10)
    ]
    return float(np.mean(found))


def wilson_covered(share_of: float, n: int, runs: int) -> float:
    """Coverage of Wilson's interval."""
    hits = np.random.default_rng(5).binomial(n, share_of, runs)
    return float(np.mean([share_of in intervals.wilson(int(h), n) for h in hits]))


def main(runs: int) -> None:
    """Print the figures of docs/reports.md."""
    for n, truth in (
        (100, Truth(0.08, 0.05)),
        (300, Truth(0.08, 0.05)),
        (300, Truth(0.02, 0.02)),
        (300, Truth(0.10, 0.04, each=5, alike=0.7)),
    ):
        print(n, truth, covered(truth, n, runs), "uncorrected", uncorrected(truth, n, runs))
    print("median of times, n=200:", medians_covered(200, min(runs, 500)))
    for truth in (Truth(0.08, 0.08), Truth(0.02, 0.02), Truth(0.16, 0.04), Truth(0.3, 0.05)):
        print("30 days of 100:", truth, stopped(truth, 30, 100, runs))


if __name__ == "__main__":
    main(int(sys.argv[1]))
