"""From judged answers to a calibration: how sure must a call be, to be right often enough?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.protocol.calibration import Calibration, Step
from proxy.protocol.evidence.intervals import upper
from trainer.errors import TrainerError

STEPS = 20
"""Floors that are tried, at equal shares of the answers. Chosen: fewer waste answers, more leave
too few in the first step to show anything."""


class Judged(NamedTuple):
    """One call of a held-out question."""

    confidence: float
    is_right: bool


def calibrate(judged: Sequence[Judged], reference: str, dataset_fingerprint: str) -> Calibration:
    """What calls at least as sure as each of up to STEPS floors came to.

    Raises TrainerError where there is no call to learn from.
    """
    if not judged:
        raise TrainerError("no call has a confidence; does the backend report log-probabilities?")
    surest = sorted(judged, reverse=True)
    counts = sorted({max(1, round(len(surest) * (n + 1) / STEPS)) for n in range(STEPS)})
    floors = sorted({surest[count - 1].confidence for count in counts}, reverse=True)
    steps = [_step([one for one in surest if one.confidence >= floor], floor) for floor in floors]
    return Calibration(reference=reference, dataset_fingerprint=dataset_fingerprint, steps=steps)


def _step(served: Sequence[Judged], floor: float) -> Step:
    wrong = sum(not one.is_right for one in served)
    return Step(floor=floor, served=len(served), wrong=wrong, upper=upper(wrong, len(served)))
