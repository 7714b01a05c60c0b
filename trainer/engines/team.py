"""Processes that train one adapter together, each with a card of its own: data parallel.

Each takes its share of a step's micro-batches; the gradients are added up before the optimizer's
step. A supervised token weighs the same wherever it is counted, so that the sum is the gradient
that one process would have had. torch's launcher names rank and size in the environment.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import distributed

from trainer.batches import Step

PATIENCE = datetime.timedelta(hours=2)
"""How long the others wait while the first one validates. Chosen: longer than any validation."""
T = TypeVar("T")


class Team:
    """This process's place among those that train together; alone by default."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def joined(cls) -> Team:
        """The team that the environment names. Call it before anything is put on a GPU."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        has_gpus = torch.cuda.is_available()
        if has_gpus:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)
        return cls(distributed.get_rank(), size)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and tells what all of them do."""
        return self.rank == 0

    def share(self, step: Step) -> Step:
        """The micro-batches that are this process's to do."""
        return step[self.rank :: self.size]

    def draw(self, seed: int, step: int) -> None:
        """Give each process its own dropout in each step, so that a resumed run draws the same."""
        if self.size > 1:
            torch.manual_seed((seed * 1_000_003 + step) * self.size + self.rank)

    def add_up(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Make each gradient the sum of all processes'."""
        if self.size == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        at = 0
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = flat[at : at + grad.numel()].view_as(parameter).clone()
            at += grad.numel()

    def total(self, number: float) -> float:
        """The sum of all processes' numbers."""
        if self.size == 1:
            return number
        told = torch.tensor(number, dtype=torch.float64)
        distributed.all_reduce(told)
        return float(told)

    def told(self, find: Callable[[], T]) -> T:
        """What the first process finds."""
        if self.size == 1:
            return find()
        found = [find() if self.is_first else None]
        distributed.broadcast_object_list(found)
        return found[0]  # type: ignore[return-value]
