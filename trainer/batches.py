"""Examples → steps of micro-batches, with little padding and nothing left out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from trainer.recipe import TrainingSettings
from trainer.tokens import Example

MicroBatch: TypeAlias = list[Example]
Step: TypeAlias = list[MicroBatch]

_WINDOW = 96
"""Examples that are sorted by length together: wide enough to save padding, narrow enough that
a step still mixes short and long ones."""


class Size(NamedTuple):
    """How much a batch holds: so many rows, or so many tokens, padding included."""

    tokens: int = 0
    rows: int = 0
    """Where it is given, tokens do not count."""

    def of(self, micros: Sequence[MicroBatch]) -> int:
        """What the micro-batches come to, in this size's unit."""
        return sum(map(len, micros)) if self.rows else sum(map(padded, micros))

    @property
    def most(self) -> int:
        return self.rows or self.tokens


def plan(examples: Sequence[Example], settings: TrainingSettings, seed: int) -> list[Step]:
    """All steps of a run, in order: a pass an epoch, each in an order of its own."""
    chance = random.Random(seed)
    micro = Size(settings.micro_tokens, settings.micro_rows or 0)
    batch = Size(settings.batch_tokens, settings.batch_rows or 0)
    planned: list[Step] = []
    for _ in range(settings.epochs):
        if settings.max_steps is None or len(planned) < settings.max_steps:
            planned += steps(examples, micro, batch, chance)
    return planned[: settings.max_steps]


def steps(
    examples: Sequence[Example], micro: Size, batch: Size, chance: random.Random
) -> list[Step]:
    """Every example once. A micro-batch is at most of the size `micro`, unless one example alone
    is larger; a step is at least of the size `batch`, but for the last."""
    order = chance.sample(range(len(examples)), len(examples))
    micros: list[MicroBatch] = []
    for start in range(0, len(order), _WINDOW):
        window = [examples[i] for i in order[start : start + _WINDOW]]
        cut = _cut(sorted(window, key=lambda e: len(e.ids)), micro)
        micros += chance.sample(cut, len(cut))
    return _grouped(micros, batch)


def padded(micro: MicroBatch) -> int:
    """Tokens of a micro-batch, padding included."""
    return len(micro) * max(len(example.ids) for example in micro)


def parts(step: Step, rows: int) -> Step:
    """The same examples in micro-batches of at most `rows`."""
    return [micro[i : i + rows] for micro in step for i in range(0, len(micro), rows)]


def _cut(window: Sequence[Example], size: Size) -> list[MicroBatch]:
    micros: list[MicroBatch] = [[]]
    for example in window:
        if micros[-1] and size.of([[*micros[-1], example]]) > size.most:
            micros.append([])
        micros[-1].append(example)
    return micros


def _grouped(micros: Sequence[MicroBatch], size: Size) -> list[Step]:
    grouped: list[Step] = [[]]
    for micro in micros:
        if size.of(grouped[-1]) >= size.most:
            grouped.append([])
        grouped[-1].append(micro)
    return grouped if micros else []
