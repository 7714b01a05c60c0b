"""AdamW over fp32 copies of the adapter, its rate along a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel

from trainer.engines.team import Team
from trainer.errors import TrainingError
from trainer.recipe import TrainingSettings

ALONE = Team()


class Master:
    """fp32 copies of bf16 parameters for the optimizer, so that small steps are not rounded away.

    The forward pass stays in bf16 throughout, which is faster than fp32 adapters on a bf16 base.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self.copies = [torch.nn.Parameter(p.detach().float().clone()) for p in parameters]

    def take_gradients(self) -> None:
        for parameter, copy in zip(self._parameters, self.copies, strict=True):
            copy.grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None

    @torch.no_grad()
    def give_back(self) -> None:
        for parameter, copy in zip(self._parameters, self.copies, strict=True):
            parameter.copy_(copy)


class Optimizer:
    """Steps an adapter down its gradient."""

    def __init__(self, model: PeftModel, settings: TrainingSettings, total: int) -> None:
        self._master = Master([p for p in model.parameters() if p.requires_grad])
        self._adam = _adam(self._master.copies, settings)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: rate(step, total, settings)
        )
        self._clip = settings.clip

    def step(self, team: Team = ALONE) -> float:
        """Take the whole team's gradients, clip them, step; returns the rate that was used."""
        self._master.take_gradients()
        team.add_up(self._master.copies)
        torch.nn.utils.clip_grad_norm_(self._master.copies, self._clip)
        (used,) = self._schedule.get_last_lr()
        self._adam.step()
        self._schedule.step()
        self._master.give_back()
        return float(used)

    def taken(self) -> list[torch.Tensor]:
        """A copy of the adapter, in fp32."""
        return [copy.detach().cpu().clone() for copy in self._master.copies]

    @torch.no_grad()
    def put(self, adapter: Sequence[torch.Tensor]) -> None:
        """Make this the adapter."""
        for copy, value in zip(self._master.copies, adapter, strict=True):
            copy.copy_(value)
        self._master.give_back()

    def state(self) -> dict[str, Any]:
        """The moments, for `restore`."""
        return dict(self._adam.state_dict())

    def restore(self, state: dict[str, Any], done: int) -> None:
        """Go on where `done` steps had been taken."""
        self._adam.load_state_dict(state)
        rates = [group["lr"] for group in self._adam.param_groups]
        at = {"last_epoch": done, "_last_lr": rates}
        self._schedule.load_state_dict(self._schedule.state_dict() | at)


def rate(step: int, total: int, settings: TrainingSettings) -> float:
    """The learning rate of a step, as a share of its peak."""
    rising = settings.warmup_steps
    if rising is None:
        rising = max(1, round(settings.warmup * total))
    if step < rising:
        return (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, total - rising))
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            left = 1 - done
        case "cosine":
            left = (1 + math.cos(math.pi * done)) / 2
    return settings.final_rate + (1 - settings.final_rate) * left


def _adam(
    parameters: Sequence[torch.nn.Parameter], settings: TrainingSettings
) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise TrainingError(
            "`training.optimizer: adamw_8bit` needs bitsandbytes; install the extra `qlora`"
        ) from error
    eight_bit: torch.optim.Optimizer = AdamW8bit(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    return eight_bit
