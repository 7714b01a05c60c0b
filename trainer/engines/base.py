"""A training engine: examples in, an adapter's two PEFT files out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from proxy.protocol.base_model import BaseModel
from trainer.recipe import DecodingSettings, Recipe
from trainer.tokens import Example
from trainer.validation import Validation


class Trained(Protocol):
    """A model with its new adapter, still in memory."""

    def save(self, directory: Path) -> None:
        """Write `adapter_config.json` and bf16 `adapter_model.safetensors`."""

    def greedy(self, prompt: Sequence[int], most: int, adapter: bool = True) -> list[int]:
        """At most `most` ids of the greedy answer, of the adapter or of the base beneath it."""

    def answers(
        self, prompts: Sequence[Sequence[int]], decoding: DecodingSettings
    ) -> list[list[int]]:
        """Ids of the answers, with the end of their turn where it came."""


class Engine(Protocol):
    """One way to train a LoRA."""

    def train(
        self,
        base: BaseModel,
        examples: Sequence[Example],
        recipe: Recipe,
        run: Path,
        validation: Validation | None = None,
    ) -> Trained:
        """Train as the recipe says; `run` gets `metrics.jsonl` and checkpoints, from which it goes
        on where an earlier call stopped.

        Raises Stopped when a signal asked for it, TrainingError when it cannot go on.
        """
