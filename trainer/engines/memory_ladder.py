"""What is done when memory runs out: the same step in smaller pieces, then with less kept.

Each rung leaves the effective batch, and so the gradient, as it was: a step's loss is a mean over
its supervised tokens, however it is cut into micro-batches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import structlog
import torch
from peft import PeftModel

from trainer.batches import Step, padded, parts
from trainer.errors import TrainingError

log = structlog.get_logger()

_CPU = ("can't allocate memory", "not enough memory", "could not create a memory")
"""How PyTorch and oneDNN say it on a processor."""


class MemoryLadder:
    """Runs steps; comes down a rung for good whenever one does not fit."""

    def __init__(self, model: PeftModel, checkpointing: bool) -> None:
        self._model = model
        self.rows = 0
        """Rows of a micro-batch, at most; 0: as planned."""
        self.checkpointing = False
        if checkpointing:
            self.checkpoint()

    def run(self, step: Step, act: Callable[[Step], float]) -> float:
        """What `act` gives for the step, cut as memory allows; raises TrainingError on the last
        rung."""
        chance = torch.get_rng_state()
        while True:
            cut = parts(step, self.rows) if self.rows else step
            try:
                return act(cut)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = f"{max(map(len, cut))} rows, {max(map(padded, cut))} tokens"
            # Outside of the handler: a caught error's traceback keeps every tensor alive.
            self._free()
            self._descend(max(map(len, cut)), size)
            # A repeated step draws the same dropout.
            torch.set_rng_state(chance)

    def checkpoint(self) -> None:
        """From now on activations are computed again instead of kept."""
        self._model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
        self.checkpointing = True

    def _descend(self, rows: int, size: str) -> None:
        if rows > 1:
            self.rows = rows // 2
        elif not self.checkpointing:
            self.checkpoint()
        else:
            raise TrainingError(
                f"memory is too small for a single example ({size}); lower `training.max_tokens` or"
                " `lora.rank`, or set `training.precision: nf4`"
            )
        log.warning(
            "memory_ran_out", size=size, micro_rows=self.rows, checkpointing=self.checkpointing
        )

    def _free(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocation that failed, on a GPU or a processor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(said in str(error) for said in _CPU)
