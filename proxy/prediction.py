"""The domain of a request that neither its tools nor anything else names: a model's best guess.

It is followed only where guesses as sure as it were right often enough on held-out questions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import structlog

from proxy.domains import RouterSettings
from proxy.errors import BadConfig, MissingExtra
from proxy.protocol.calibration import NEVER
from proxy.protocol.openai import Message

log = structlog.get_logger(__name__)


class Model(Protocol):
    """As protocol.router's RouterModel."""

    def predict(
        self, messages: Sequence[Message], among: Collection[str]
    ) -> tuple[str, float] | None: ...


class Predictor:
    """A model, and how sure it must be."""

    def __init__(self, model: Model, floor: float) -> None:
        self._model = model
        self._floor = floor

    def predict(
        self, messages: Sequence[Message], among: Collection[str]
    ) -> tuple[str, float] | None:
        """One of these domains and its probability; None where the model is not sure enough."""
        found = self._model.predict(messages, among)
        return found if found is not None and found[1] >= self._floor else None


def build(settings: RouterSettings) -> Predictor:
    """The model that routes.yaml names; raises MissingExtra and BadConfig."""
    place = "$.defaults.router"
    try:
        from proxy.protocol import router
    except ImportError as error:
        raise MissingExtra(
            f"{place}: a router model needs the package {error.name!r}, which is not installed;"
            " run: pip install 'headrace[router]'"
        ) from error
    try:
        model = router.read(settings.model)
    except router.RouterError as error:
        raise BadConfig(f"{place}.model: {error}") from error
    floor = model.calibration.floor(settings.target_error)
    log.info("router_read", domains=model.domains, floor=None if floor == NEVER else floor)
    return Predictor(model, floor)
