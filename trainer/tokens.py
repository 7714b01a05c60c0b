"""A row as token ids: the prompt that the proxy will send, and the completion that is learnt.

One renderer for both sides: the prompt is rendered by `proxy.protocol.formats`, exactly as the
proxy renders the same request, and encoded apart from the completion, exactly as an engine sees
it. `preflight` proves it on every row before time is spent on training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS, prompt
from proxy.protocol.formats.base import CONTROL
from trainer.errors import PreflightError
from trainer.rows import Row


class Example(NamedTuple):
    """Token ids of a row: `ids` (T,), of which the first `prompt` are not learnt."""

    ids: list[int]
    prompt: int

    @property
    def completion(self) -> list[int]:
        return self.ids[self.prompt :]


class Encoder:
    """Rows → examples, for one base model, template and format."""

    def __init__(self, base: BaseModel, template: str, format: str) -> None:
        self.base = base
        self._template = template
        self._format = FORMATS[format]
        self._end = self._format.end

    def __call__(self, row: Row) -> Example:
        prompt = self.prompt(row)
        return Example([*prompt, *self.base.encode(self.completion(row) + self._end)], len(prompt))

    def prompt(self, row: Row) -> list[int]:
        """Ids up to where the answer begins."""
        return self.base.encode(prompt(self._format, self._template, row.messages, row.functions))

    def completion(self, row: Row) -> str:
        """The answer that is learnt, without its end."""
        return self._format.answer(row.calls) if row.calls else row.text

    def preflight(self, rows: Sequence[Row]) -> None:
        """Raise PreflightError for the first row that would train something else than it says."""
        for row in rows:
            fault = self._fault(row, self(row))
            if fault is not None:
                raise PreflightError(f"row {row.id} ({row.source}): {fault}")

    def _smuggles(self, row: Row) -> bool:
        return any(token in self.completion(row) for token in CONTROL)

    def _fault(self, row: Row, example: Example) -> str | None:
        decode = self.base.tokenizer.decode
        if (
            decode(example.completion, skip_special_tokens=False)
            != self.completion(row) + self._end
        ):
            return "the labels do not decode to the answer; the tokenizer loses text"
        if example.completion[-1:] != self.base.encode(self._end) or self._smuggles(row):
            return "the last label is not the end of the turn, or it comes twice"
        parsed = self._format.parse(self.completion(row))
        if [c.function for c in parsed.calls] != row.calls or parsed.broken:
            return "the format does not parse its own answer; is the format the right one?"
        return None
