"""How steeply a cost grows: its exponent, the slope between neighbours where both scales are
logarithmic. 0 is no growth, 1 is linear, 2 is quadratic.

A cost that is mostly constant may jump and still have a small exponent: a step is a cliff, too,
where it costs twice what the step before it promises.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.growth.axes import Axis, Point

LINEAR = 1.15
"""Exponents above this are worse than linear. Chosen: over a step of ten, a cost may be measured
1.4 times too high."""
CLIFF = 2.0
"""Times what the slope of the step before promises. Chosen: what repeats itself differs by less."""


class Step(NamedTuple):
    """From one place on an axis to the next."""

    exponent: float
    start: int
    end: int
    surprise: float
    """The cost at the end, as a multiple of what the step before promises; 1 for the first."""

    @property
    def is_bad(self) -> bool:
        """Whether it is worse than linear, or a cliff."""
        return self.exponent > LINEAR or self.surprise > CLIFF


def medians(points: Sequence[Point], axis: Axis) -> dict[int, dict[str, float]]:
    """Place on the axis → the median of each figure over the rounds."""
    found: dict[int, dict[str, float]] = {}
    for at in sorted({point.at for point in points if point.axis == axis.name}):
        mine = [point.values for point in points if (point.axis, point.at) == (axis.name, at)]
        keys = {key for values in mine for key in values}
        found[at] = {key: statistics.median(v[key] for v in mine if key in v) for key in keys}
    return found


def steps(costs: Mapping[int, float]) -> list[Step]:
    """Each step between neighbours."""
    found: list[Step] = []
    slope = math.inf
    for (start, before), (end, after) in pairwise(sorted(costs.items())):
        exponent = math.log(after / before) / math.log(end / start)
        promised = before + max(0.0, slope) * (end - start)
        found.append(Step(exponent, start, end, after / promised if found else 1.0))
        slope = (after - before) / (end - start)
    return found


def verdict(points: Sequence[Point], axis: Axis) -> str:
    """A sentence: what grows worse than linearly or has a cliff, or else what grows most."""
    told = medians(points, axis)
    found = [
        (column.title, step)
        for key, column in axis.columns.items()
        if column.is_cost
        for step in steps({at: v[key] for at, v in told.items() if v.get(key, 0) > 0})
    ]
    errors = sum(point.errors for point in points if point.axis == axis.name)
    failed = f" **{errors} errors.**" if errors else ""
    if not found:
        return f"Not enough was measured.{failed}"
    bad = [(title, step) for title, step in found if step.is_bad]
    if bad:
        return f"**Worse than linear, or a cliff**: {'; '.join(map(_words, bad))}.{failed}"
    return f"Linear or better, no cliff; steepest: {_words(max(found, key=_exponent))}.{failed}"


def _exponent(of: tuple[str, Step]) -> float:
    return of[1].exponent


def _words(of: tuple[str, Step]) -> str:
    title, step = of
    jump = f", {step.surprise:.1f} × what was to be expected" if step.surprise > CLIFF else ""
    return f"{title}, exponent {step.exponent:.2f} ({step.start:,} → {step.end:,}){jump}"
