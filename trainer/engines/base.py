"""A training engine: examples in, an adapter's two PEFT files out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from proxy.protocol.base_model import BaseModel
from trainer.recipe import Recipe
from trainer.tokens import Example


class Trained(Protocol):
    """A model with its new adapter, still in memory."""

    def save(self, directory: Path) -> None:
        """Write `adapter_config.json` and bf16 `adapter_model.safetensors`."""

    def greedy(self, prompt: Sequence[int], most: int, adapter: bool = True) -> list[int]:
        """At most `most` ids of the greedy answer, of the adapter or of the base beneath it."""


class Engine(Protocol):
    """One way to train a LoRA."""

    def train(
        self, base: BaseModel, examples: Sequence[Example], recipe: Recipe, run: Path
    ) -> Trained:
        """Train on every example once; writes `metrics.jsonl` in `run` as it goes."""
