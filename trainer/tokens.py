"""A row as token ids: the prompt that the proxy will send, and the completion that is learnt.

One renderer for both sides: the prompt is rendered by `proxy.protocol.formats`, exactly as the
proxy renders the same request, and encoded apart from the completion, exactly as an engine sees
it. `preflight` proves it on every row before time is spent on training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS, prompt
from proxy.protocol.formats.base import Format, Parsed, neutral, template
from trainer.errors import PreflightError
from trainer.recipe import Recipe
from trainer.rows import Row


class Example(NamedTuple):
    """Token ids of a row: `ids` (T,), of which the first `prompt` are not learnt."""

    ids: list[int]
    prompt: int

    @property
    def completion(self) -> list[int]:
        return self.ids[self.prompt :]


class Encoder:
    """Rows → examples, for one base model and one template a format."""

    def __init__(
        self, base: BaseModel, template: str, format: str, others: Mapping[str, str] | None = None
    ) -> None:
        """`format` is that of rows which name none; `others`: further formats, with templates."""
        self.base = base
        self.templates = {format: template, **(others or {})}
        """Format → source of its template."""
        self._default = format

    @classmethod
    def of(cls, recipe: Recipe, base: BaseModel) -> Encoder:
        """The encoder of a recipe."""
        others = {str(format): template(name) for format, name in recipe.formats.items()}
        return cls(base, template(recipe.template), recipe.format, others)

    def __call__(self, row: Row) -> Example:
        prompt = self.prompt(row)
        return Example([*prompt, *self.base.encode(self.written(row))], len(prompt))

    def format(self, row: Row) -> Format:
        """The row's format; raises PreflightError for one that the recipe does not train."""
        name = row.format or self._default
        if name not in self.templates:
            raise PreflightError(
                f"row {row.id} ({row.source}) is of the format {name!r}; add it to the recipe's"
                " `formats`"
            )
        return FORMATS[name]

    def text(self, row: Row) -> str:
        """The prompt, up to where the answer begins."""
        format = self.format(row)
        return prompt(format, self.templates[format.name], row.messages, row.functions)

    def prompt(self, row: Row) -> list[int]:
        """Its ids."""
        return self.base.encode(self.text(row))

    def completion(self, row: Row) -> str:
        """The answer that is learnt, without its end."""
        if not row.calls:
            return row.text
        return self.format(row).answer(row.calls, neutral(row.question))

    def written(self, row: Row) -> str:
        """The answer that is learnt, with the end of the turn."""
        return self.completion(row) + self.format(row).end

    def end(self, row: Row) -> list[int]:
        """Ids of the end of the turn; one, in a sound tokenizer."""
        return self.base.encode(self.format(row).end)

    def parsed(self, row: Row, answer: Sequence[int]) -> Parsed:
        """What an answer's ids say, read as the proxy reads them."""
        end = self.end(row)[0]
        ids = list(answer)
        upto = ids.index(end) if end in ids else len(ids)
        text: str = self.base.tokenizer.decode(ids[:upto], skip_special_tokens=True)
        return self.format(row).parse(text)
