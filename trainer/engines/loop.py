"""The training loop: a plain one, so that what happens can be read.

    restore → [step → tell → validate → keep] … → the best adapter

It ends when the plan is done, when validation finds nothing better for a while, when a file says
that it is enough, when the loss is no number, or when it is asked to stop; in the last case the
checkpoint holds everything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
from peft import PeftModel

from trainer.batches import MicroBatch, Step, padded
from trainer.engines import checkpoint
from trainer.engines.checkpoint import State
from trainer.engines.journal import Journal, Line, Quiet, memory
from trainer.engines.loss import cross_entropy
from trainer.engines.memory_ladder import MemoryLadder
from trainer.engines.optimizer import Optimizer
from trainer.engines.stopping import Stopping
from trainer.engines.team import Team
from trainer.errors import Stopped, TrainingError
from trainer.recipe import Recipe
from trainer.validation import Marks

Loss = Callable[[PeftModel, MicroBatch], torch.Tensor]
"""Summed over a micro-batch's supervised tokens."""
Judge = Callable[[], Marks]
"""Has the model answer the validation rows."""


ENOUGH = "enough"
"""A file of this name in the run's directory ends the run after its step, as if the plan were done;
a stopped run that is started again then ends with what it had learnt."""


class Loop:
    """One run of one adapter."""

    def __init__(
        self,
        model: PeftModel,
        plan: Sequence[Step],
        recipe: Recipe,
        run: Path,
        *,
        base_sha256: str,
        judge: Judge | None = None,
        loss: Loss = cross_entropy,
        team: Team | None = None,
    ) -> None:
        self._model = model
        self._plan = plan
        self._settings = recipe.training
        self._run = run
        self._judge = judge if self._settings.validate_every else None
        self._loss = loss
        self._team = team or Team()
        self._seed = recipe.seed
        self._optimizer = Optimizer(model, self._settings, len(plan))
        self._ladder = MemoryLadder(model, self._settings.gradient_checkpointing)
        self._fingerprint = _fingerprint(plan, recipe, base_sha256)
        self._best: Marks | None = None
        self._best_adapter: list[torch.Tensor] = []
        self._worse = 0

    def fit(self) -> None:
        """Train; the model then holds the best adapter.

        Raises Stopped when a signal asked for it, TrainingError when it cannot go on.
        """
        start = self._restore()
        self._model.train()
        first = self._team.is_first
        told = Journal(self._run, len(self._plan), start) if first else Quiet()
        with told, Stopping() as stopping:
            for number in self._left(start):
                over = self._one(number, told) or (self._run / ENOUGH).exists()
                over = self._team.total(over) > 0
                asked = self._team.total(stopping.asked) > 0
                if asked or self._is_due(number, self._settings.checkpoint_every):
                    self._save(number + 1)
                if over:
                    break
                if asked and number + 1 < len(self._plan):
                    raise Stopped(
                        f"stopped after step {number + 1} of {len(self._plan)}; the same command"
                        " goes on from there"
                    )
        if first:
            (self._run / ENOUGH).unlink(missing_ok=True)
        if self._best_adapter:
            self._optimizer.put(self._best_adapter)

    def _left(self, start: int) -> range:
        """Steps that are still to be taken; none where what is learnt was said to be enough."""
        ends = bool(start) and (self._run / ENOUGH).exists()
        return range(start, start if ends else len(self._plan))

    def _one(self, number: int, told: Journal | Quiet) -> bool:
        """One step; whether it is time to give up."""
        step = self._plan[number]
        supervised = sum(len(example.completion) for micro in step for example in micro)
        self._team.draw(self._seed, number)
        mine = self._ladder.run(
            self._team.share(step), lambda cut: self._gradients(cut, supervised)
        )
        loss = self._team.total(mine)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is no number any more at step {number + 1}; lower"
                " `training.learning_rate`, then train into another --out"
            )
        rate = self._optimizer.step(self._team)
        tokens = sum(map(padded, step))
        line = Line(
            step=number,
            loss=loss,
            tokens=tokens,
            tok_s=told.speed(tokens),
            rate=rate,
            memory_bytes=memory(),
        )
        marks = self._validated(number)
        told.tell(_with(line, marks))
        if marks is not None:
            told.speed(0)
        return self._worse >= self._settings.patience

    def _gradients(self, step: Step, supervised: int) -> float:
        """Gradients of a step, or of our share of it, and its part of the mean loss over all
        `supervised` tokens. Each of these weighs the same, whatever its micro-batch."""
        whole = 0.0
        for micro in step:
            part = self._loss(self._model, micro) / supervised
            part.backward()  # type: ignore[no-untyped-call]
            whole += part.item()
        return whole

    def _validated(self, number: int) -> Marks | None:
        """The marks, where it is time for them; keeps the adapter that got the best."""
        last = number + 1 == len(self._plan)
        if self._judge is None or not (last or self._is_due(number, self._settings.validate_every)):
            return None
        self._model.eval()
        marks = self._team.told(self._judge)
        self._model.train()
        if self._best is None or marks > self._best:
            self._best, self._worse = marks, 0
            self._best_adapter = self._optimizer.taken()
        else:
            self._worse += 1
        return marks

    def _is_due(self, number: int, every: int) -> bool:
        return (number + 1) % every == 0

    # ------------------------------------------------------------------ checkpoints

    def _save(self, done: int) -> None:
        if not self._team.is_first:
            return
        gpu = torch.cuda.is_available()
        state = State(
            fingerprint=self._fingerprint,
            step=done,
            adapter=self._optimizer.taken(),
            optimizer=self._optimizer.state(),
            chance=torch.get_rng_state(),
            chance_gpu=torch.cuda.get_rng_state_all() if gpu else [],
            micro_rows=self._ladder.rows,
            checkpointing=self._ladder.checkpointing,
            best=list(self._best or ()),
            best_adapter=self._best_adapter,
            worse=self._worse,
        )
        checkpoint.save(self._run, state)

    def _restore(self) -> int:
        """Steps that are done already."""
        state = checkpoint.load(self._run, self._fingerprint)
        if state is None:
            return 0
        self._optimizer.put(state["adapter"])
        self._optimizer.restore(state["optimizer"], state["step"])
        torch.set_rng_state(state["chance"])
        if state["chance_gpu"]:
            torch.cuda.set_rng_state_all(state["chance_gpu"])
        self._ladder.rows = state["micro_rows"]
        if state["checkpointing"] and not self._ladder.checkpointing:
            self._ladder.checkpoint()
        self._best = Marks(*state["best"]) if state["best"] else None
        self._best_adapter, self._worse = state["best_adapter"], state["worse"]
        return state["step"]


def _with(line: Line, marks: Marks | None) -> Line:
    if marks is None:
        return line
    return msgspec.structs.replace(
        line,
        call_exact=marks.call_exact,
        false_calls=round(-marks.true_silence),
        validation_loss=-marks.fit,
    )


def _fingerprint(plan: Sequence[Step], recipe: Recipe, base_sha256: str) -> str:
    """Hash of all that decides how a run goes: recipe, base, and every id in its order."""
    whole = hashlib.sha256(msgspec.json.encode([recipe, base_sha256]))
    for step in plan:
        whole.update(msgspec.json.encode(step))
    return whole.hexdigest()
