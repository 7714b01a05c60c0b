"""Examples → steps of micro-batches, with little padding and nothing left out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeAlias

from trainer.tokens import Example

MicroBatch: TypeAlias = list[Example]
Step: TypeAlias = list[MicroBatch]

_WINDOW = 96
"""Examples that are sorted by length together: wide enough to save padding, narrow enough that
a step still mixes short and long ones."""


def steps(
    examples: Sequence[Example], micro_tokens: int, batch_tokens: int, chance: random.Random
) -> list[Step]:
    """Every example once. A micro-batch has at most `micro_tokens`, padding included, unless one
    example alone has more; a step has at least `batch_tokens`, but for the last."""
    order = chance.sample(range(len(examples)), len(examples))
    micros: list[MicroBatch] = []
    for start in range(0, len(order), _WINDOW):
        window = [examples[i] for i in order[start : start + _WINDOW]]
        cut = _cut(sorted(window, key=lambda e: len(e.ids)), micro_tokens)
        micros += chance.sample(cut, len(cut))
    return _grouped(micros, batch_tokens)


def padded(micro: MicroBatch) -> int:
    """Tokens of a micro-batch, padding included."""
    return len(micro) * max(len(example.ids) for example in micro)


def _cut(window: Sequence[Example], micro_tokens: int) -> list[MicroBatch]:
    micros: list[MicroBatch] = [[]]
    for example in window:
        if micros[-1] and padded([*micros[-1], example]) > micro_tokens:
            micros.append([])
        micros[-1].append(example)
    return micros


def _grouped(micros: Sequence[MicroBatch], batch_tokens: int) -> list[Step]:
    grouped: list[Step] = [[]]
    for micro in micros:
        if sum(map(padded, grouped[-1])) >= batch_tokens:
            grouped.append([])
        grouped[-1].append(micro)
    return grouped if micros else []
