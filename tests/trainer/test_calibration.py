"""A floor that was measured holds on answers that it has not seen."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from proxy.protocol.calibration import NEVER, Calibration, Step, enough
from trainer.calibration import Judged, calibrate, upper
from trainer.errors import TrainerError

# (probability of the call's arguments, whether it was right) of all calls that api-v1 made on 120
# held-out questions about tools that it knew and 120 about tools that it did not.
REAL = [Judged(*pair) for pair in json.loads(Path("tests/data/api-v1-judged.json").read_text())]


def calibration(*steps: tuple[float, int, int]) -> Calibration:
    return Calibration(
        reference="labels",
        dataset_fingerprint="",
        steps=[
            Step(floor=floor, served=served, wrong=wrong, upper=upper(wrong, served))
            for floor, served, wrong in steps
        ],
    )


def test_upper_bounds_are_those_of_the_tables():
    assert upper(0, 59) == pytest.approx(0.0495, abs=1e-4)
    assert upper(5, 50) == pytest.approx(0.199, abs=1e-3)
    assert upper(3, 3) == 1.0


def test_floor_is_the_lowest_that_passes_in_one_run_from_the_top():
    measured = calibration((0.9, 100, 1), (0.8, 200, 4), (0.7, 300, 60), (0.6, 5000, 10))

    assert measured.floor(0.05) == 0.8


def test_step_too_small_to_show_anything_does_not_end_the_search():
    measured = calibration((0.9, 10, 0), (0.8, 400, 4))

    assert enough(0.05) > 10
    assert measured.floor(0.05) == 0.8


def test_adapter_that_is_never_right_enough_is_never_given():
    assert calibration((0.9, 400, 200), (0.5, 800, 500)).floor(0.05) == NEVER


def test_answers_of_equal_confidence_stay_together():
    measured = calibrate([Judged(0.5, True)] * 10 + [Judged(0.5, False)] * 30, "labels", "")

    assert [(step.served, step.wrong) for step in measured.steps] == [(40, 30)]


def test_without_confidences_there_is_nothing_to_calibrate():
    with pytest.raises(TrainerError, match="log-probabilities"):
        calibrate([], "labels", "")


@pytest.mark.parametrize("target", [0.5, 0.55, 0.6, 0.65, 0.7])
def test_real_calls_above_the_floor_disagree_no_more_than_the_target(target):
    """Measured on one half of the answers and held against the other, halved in many ways: in some
    5 % of them even the other half's whole interval may lie above the target."""
    splits = 200
    broken = sum(_is_broken(target, seed) for seed in range(splits))

    assert broken <= 0.05 * splits


def _is_broken(target: float, seed: int) -> bool:
    mixed = random.Random(seed).sample(REAL, len(REAL))
    half = len(mixed) // 2
    floor = calibrate(mixed[:half], "labels", "").floor(target)
    served = [one for one in mixed[half:] if one.confidence >= floor]
    right = sum(one.is_right for one in served)
    return bool(served) and 1 - upper(right, len(served)) > target


def test_real_floors_give_some_calls_and_keep_others():
    floor = calibrate(REAL, "labels", "").floor(0.6)

    served = [one for one in REAL if one.confidence >= floor]
    assert 0 < len(served) < len(REAL)
