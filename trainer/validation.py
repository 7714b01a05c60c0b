"""How good a half-trained adapter is at its task: it answers the validation rows, and is judged.

Not by its loss: a loss of 0.5 has gone with not one right answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trainer.rows import Row
from trainer.scorers.toolcall import score
from trainer.tokens import Encoder, Example


class Marks(NamedTuple):
    """Higher is better, the first that differs decides."""

    call_exact: float
    """Share of the rows answered right: the right call, or none where none fits."""
    true_silence: float
    """Calls where nothing fits, negated."""
    fit: float
    """The completions' mean loss, negated."""


class Validation:
    """Validation rows as prompts, and the marks for their answers."""

    def __init__(self, rows: Sequence[Row], encoder: Encoder, most: int) -> None:
        """`most`: ids of an example; longer ones are left out, as in training."""
        encoded = [(row, encoder(row)) for row in rows]
        self._rows = [row for row, example in encoded if len(example.ids) <= most]
        self.examples: list[Example] = [e for _, e in encoded if len(e.ids) <= most]
        self._encoder = encoder

    @property
    def prompts(self) -> list[list[int]]:
        return [example.ids[: example.prompt] for example in self.examples]

    def marks(self, answers: Sequence[Sequence[int]], loss: float) -> Marks:
        """What these answers (ids, in the order of `prompts`) are worth."""
        scores = [
            score(row, self._encoder.parsed(row, answer))
            for row, answer in zip(self._rows, answers, strict=True)
        ]
        false = sum(one.called for one in scores if not one.must_call)
        return Marks(sum(one.call_exact for one in scores) / len(scores), float(-false), -loss)
