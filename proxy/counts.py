"""Counters and histograms as plain numbers, told as Prometheus tells them when somebody asks.

The library's own take a lock for each number; here whoever counts holds one for many requests.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Counter:
    """A number for each combination of labels that occurs."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._values: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """One more with these labels."""
        self._values[labels] = self._values.get(labels, 0) + 1

    def told(self) -> Metric:
        """All numbers."""
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class _Observed:
    """The values seen with one combination of labels."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0


class Histogram:
    """How values are spread, for each combination of labels that occurs."""

    def __init__(
        self, name: str, about: str, buckets: tuple[float, ...], labels: tuple[str, ...]
    ) -> None:
        """`buckets`: their upper bounds, in order; there is one more for all above."""
        self._name = name
        self._about = about
        self._bounds = (*buckets, math.inf)
        self._labels = labels
        self._observed: dict[tuple[str, ...], _Observed] = {}

    def observe(self, value: float, *labels: str) -> None:
        """A value was seen with these labels."""
        observed = self._observed.get(labels)
        if observed is None:
            observed = self._observed[labels] = _Observed(len(self._bounds))
        observed.counts[bisect_left(self._bounds, value)] += 1
        observed.sum += value

    def told(self) -> Metric:
        """All values."""
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        names = [str(floatToGoString(bound)) for bound in self._bounds]  # type: ignore[no-untyped-call]
        for labels, observed in self._observed.items():
            below = list(zip(names, accumulate(observed.counts), strict=True))
            family.add_metric(labels, below, observed.sum)
        return family
