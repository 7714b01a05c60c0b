"""How often an adapter's calls were right, by how sure the engine was of them.

The trainer measures it on held-out rows and writes it into the bundle; the proxy reads from it how
sure a call must be to be given.
"""

from __future__ import annotations

import math

import msgspec

NEVER = 2.0
"""A floor that no confidence reaches."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What calls at least this sure came to."""

    floor: float
    """Probability that the engine gave to the call, 0 to 1."""
    served: int
    wrong: int
    upper: float
    """Upper end of the one-sided 95 % interval of wrong / served (Clopper and Pearson)."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Measured on one dataset against one reference."""

    reference: str
    """What a call had to agree with: `labels`, or the snapshot of a model."""
    dataset_fingerprint: str
    steps: list[Step]
    """From the highest floor down."""

    def floor(self, target: float) -> float:
        """The lowest floor at which, by all that was seen, at most `target` of the calls are wrong.

        Steps are tried from the top until one fails, so that trying many costs no certainty (fixed
        sequence testing); those too small to show that much are left out. NEVER when the first one
        fails.
        """
        lowest = NEVER
        for step in self.steps:
            if step.served < enough(target):
                continue
            if step.upper > target:
                break
            lowest = step.floor
        return lowest


def enough(target: float) -> int:
    """Calls without which not even an adapter that errs half as often as `target` passes, about."""
    return math.ceil(8 / target)
