"""What bench-growth calls worse than linear, and what it does not."""

from __future__ import annotations

import pytest

from bench.growth.axes import Axis, Column, Point
from bench.growth.verdict import steps, verdict

AXIS = Axis("n", "", (), (), {"cost": Column("cost", ".0f"), "rate": Column("rate", ".0f", False)})


def points(*costs: float) -> list[Point]:
    """Costs at 1, 10, 100, …; what is no cost grows with the cube of it."""
    values = [{"cost": cost, "rate": cost**3} for cost in costs]
    return [Point("n", 10**place, value) for place, value in enumerate(values)]


@pytest.mark.parametrize(
    "costs", [(5, 5, 5), (1, 10, 100), (1000, 1009, 1099, 1999), (3, 2, 3), (8, 4, 2)]
)
def test_linear_growth_or_less_is_fine(costs: tuple[float, ...]):
    assert verdict(points(*costs), AXIS).startswith("Linear or better, no cliff; steepest: cost")


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ((1, 100), "exponent 2.00 (1 → 10)"),
        ((1, 10, 1000), "exponent 2.00 (10 → 100)"),
        ((1000, 1010, 3500), "(10 → 100), 3.2 × what was to be expected"),
    ],
)
def test_what_grows_faster_is_named_with_its_step(costs: tuple[float, ...], words: str):
    told = verdict(points(*costs), AXIS)

    assert told.startswith("**Worse than linear, or a cliff**")
    assert words in told


def test_rounds_are_told_by_their_median_and_errors_are_told():
    rounds = [*points(1, 10), *points(1, 10), *points(1, 1000)]
    rounds[0].errors = 3

    assert verdict(rounds, AXIS) == (
        "Linear or better, no cliff; steepest: cost, exponent 1.00 (1 → 10). **3 errors.**"
    )


def test_first_step_surprises_nobody():
    assert [step.surprise for step in steps({1: 1.0, 10: 500.0})] == [1.0]
