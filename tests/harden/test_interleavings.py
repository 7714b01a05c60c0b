"""Many orders of events for each thing that requests share; `make interleavings` tries 10 000."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.harden.interleavings import KINDS

SEEDS = {"recorder": 40, "registry's names": 50}


@pytest.mark.parametrize("kind", KINDS)
def test_laws_hold_in_any_order(kind: str):
    with capture_logs():
        for seed in range(SEEDS.get(kind, 100)):
            KINDS[kind](seed)
