"""A run's state on disk, from which it goes on as if it had never stopped.

What is kept: the adapter in fp32, the optimizer, the random numbers' state, how far down the memory
ladder the run is, and what validation chose so far. The order of the data follows from the recipe's
seed; a fingerprint proves that recipe, data and base are still the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypedDict

import torch

from trainer.errors import TrainingError

CHECKPOINT = "checkpoint.pt"


class State(TypedDict):
    """One checkpoint. Plain tensors, lists and numbers: it is read without running any code."""

    fingerprint: str
    step: int
    """Steps that are done."""
    adapter: list[torch.Tensor]
    optimizer: dict[str, Any]
    chance: torch.Tensor
    chance_gpu: list[torch.Tensor]
    micro_rows: int
    checkpointing: bool
    best: list[float]
    """Marks of the best validation so far; empty: none yet."""
    best_adapter: list[torch.Tensor]
    worse: int
    """Validations since."""


def save(run: Path, state: State) -> None:
    """Write the checkpoint in one step: a reader finds the old or the new one, whole."""
    staged = run / f"{CHECKPOINT}.tmp"
    with staged.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, run / CHECKPOINT)


def load(run: Path, fingerprint: str) -> State | None:
    """The checkpoint in `run`, if there is one.

    Raises TrainingError when it belongs to another recipe, dataset or base.
    """
    path = run / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: State = torch.load(path, weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path} cannot be read ({error}); delete it to start anew") from error
    if state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{path} belongs to another recipe, dataset or base model; take another --out, or"
            " delete it to start anew"
        )
    return state


def remove(run: Path) -> None:
    """Forget the checkpoint of a run that is over."""
    (run / CHECKPOINT).unlink(missing_ok=True)
