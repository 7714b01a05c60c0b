"""The filter that drops what training cannot take: too long in rendered tokens, or unlearnable."""

from __future__ import annotations

from typing import ClassVar

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from trainer import learnable
from trainer.curate.filter import Drop
from trainer.recipe import Recipe
from trainer.recipe.curation import LengthSettings
from trainer.rows import Row
from trainer.tokens import Encoder


class Length:
    """Prompt and answer fit, as a cut answer would teach to stop early; and they can be learnt."""

    version: ClassVar[int] = 2

    def __init__(self, settings: LengthSettings, recipe: Recipe) -> None:
        self._most = settings.max_tokens or recipe.training.max_tokens
        base = BaseModel.find(recipe.base_model)
        self._encode = Encoder(base, template(recipe.template), recipe.format)

    def __call__(self, row: Row) -> Row | Drop:
        example = self._encode(row)
        if len(example.ids) > self._most:
            return Drop("too_long", f"{len(example.ids)} tokens")
        failed = learnable.fault(self._encode, row, example)
        return row if failed is None else Drop("not_learnable", f"fails: {failed}")
