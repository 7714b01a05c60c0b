"""The rate's path, and small steps that are not lost."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("peft", reason="needs the train extra")

import torch

from trainer.engines.optimizer import Master, rate
from trainer.recipe import TrainingSettings

COSINE = TrainingSettings(warmup=0.1)


def rates(settings: TrainingSettings, total: int = 100) -> list[float]:
    return [rate(step, total, settings) for step in range(total)]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_rises_then_falls_to_a_tenth(schedule):
    path = rates(msgspec.structs.replace(COSINE, schedule=schedule))

    assert path[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert path[10:] == sorted(path[10:], reverse=True)
    assert 0.1 <= path[-1] < 0.12


def test_a_linear_rate_can_fall_to_nothing_after_so_many_steps():
    path = rates(TrainingSettings(schedule="linear", final_rate=0.0, warmup_steps=10), 110)

    assert path[9] == path[10] == 1.0
    assert path[60] == pytest.approx(0.5)
    assert path[-1] == pytest.approx(0.01)


def test_a_constant_rate_stays():
    assert set(rates(msgspec.structs.replace(COSINE, schedule="constant"))[10:]) == {1.0}


def test_without_a_warm_up_the_rate_starts_at_its_peak():
    assert rates(TrainingSettings(warmup_steps=0))[0] == 1.0


def test_small_steps_are_not_rounded_away():
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    master = Master([parameter])

    master.copies[0].data -= 1e-3
    master.give_back()
    master.copies[0].data -= 3e-3
    master.give_back()

    assert parameter.item() == pytest.approx(0.996, abs=5e-4)
