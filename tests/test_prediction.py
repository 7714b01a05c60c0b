"""A guess is followed where it is sure enough, and only where routes.yaml says so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

pytest.importorskip("mmh3", reason="needs the router extra")

from structlog.testing import capture_logs

from proxy.domains import RouterSettings
from proxy.errors import BadConfig
from proxy.prediction import Predictor, build
from proxy.protocol.openai import Message
from tests.protocol.test_router import HOTELS, MEASURED, model


class _Sure:
    """A model that is 80 % sure of whatever comes first."""

    def predict(
        self, messages: Sequence[Message], among: Collection[str]
    ) -> tuple[str, float] | None:
        return next(iter(among)), 0.8


@pytest.mark.parametrize(("floor", "followed"), [(0.8, True), (0.81, False), (2.0, False)])
def test_guess_below_the_floor_is_none(floor: float, followed: bool):
    found = Predictor(_Sure(), floor).predict(HOTELS, ["bookings"])

    assert found == (("bookings", 0.8) if followed else None)


def test_floor_is_the_one_that_was_measured(tmp_path: Path):
    path = tmp_path / "router.safetensors"
    model().write(path)

    with capture_logs() as logs:
        followed = build(RouterSettings(path, target_error=0.05)).predict(HOTELS, ["bookings"])
        distrusted = build(RouterSettings(path, target_error=0.01)).predict(HOTELS, ["bookings"])

    assert followed is not None
    assert distrusted is None
    assert [log["floor"] for log in logs] == [MEASURED.steps[0].floor, None]


def test_missing_model_is_told_with_its_place(tmp_path: Path):
    with pytest.raises(BadConfig, match=r"\$\.defaults\.router\.model: .*absent.*router train"):
        build(RouterSettings(tmp_path / "absent"))
