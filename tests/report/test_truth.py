"""Intervals and verdicts on simulated backends whose truth is known.

HEADRACE_SIMULATIONS says how often; `make test-statistics` asks for 2 000 and prints the figures.
"""

from __future__ import annotations

import os
from math import sqrt

import pytest

from tests.report.simulations import (
    Truth,
    covered,
    medians_covered,
    stopped,
    uncorrected,
    wilson_covered,
)

RUNS = int(os.environ.get("HEADRACE_SIMULATIONS", "40"))
NOISE = 3 * sqrt(0.05 * 0.95 / RUNS)
"""Three standard errors of a share of runs that is 5 %."""
APPROXIMATE = 0.015
"""What coverage may be off at this n beside noise: the score intervals are not exact."""


@pytest.mark.parametrize(
    "truth",
    [Truth(0.08, 0.05), Truth(0.02, 0.02), Truth(0.10, 0.04, each=5, alike=0.7)],
)
def test_intervals_cover_the_truth_at_their_nominal_rate(truth):
    found = covered(truth, 300, RUNS)

    print(truth, found)
    assert found["difference"] == pytest.approx(0.95, abs=NOISE + APPROXIMATE)
    assert found["agreement"] == pytest.approx(0.95, abs=NOISE + APPROXIMATE)
    assert found["difference, every look"] >= 0.95 - NOISE
    assert found["agreement, every look"] >= 0.95 - NOISE


def test_without_regard_for_conversations_they_would_not():
    assert uncorrected(Truth(0.10, 0.04, each=5, alike=0.7), 300, RUNS) < 0.85


def test_wilsons_interval_covers_shares_near_one():
    assert wilson_covered(0.97, 200, 2000) == pytest.approx(0.95, abs=0.03)


def test_the_interval_of_a_median_difference_covers():
    runs = min(RUNS, 500)

    found = medians_covered(100, runs)

    print("median", found)
    assert found == pytest.approx(0.95, abs=3 * sqrt(0.05 * 0.95 / runs) + APPROXIMATE)


@pytest.mark.parametrize("truth", [Truth(0.08, 0.08), Truth(0.02, 0.02)])
def test_who_looks_every_day_errs_at_the_nominal_rate_at_most(truth):
    found = stopped(truth, days=30, a_day=50, runs=RUNS)

    print(truth, found)
    assert found.always <= 0.05
    # The interval for one look errs several times as often: hence the other one.
    assert found.once > 0.08


def test_a_large_difference_is_found_early():
    found = stopped(Truth(0.30, 0.05), days=30, a_day=50, runs=RUNS)

    print(found)
    assert found.always == 1.0
    assert found.pairs <= 200
