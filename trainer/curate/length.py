"""The filter that drops what is too long for training, in rendered tokens."""

from __future__ import annotations

from typing import ClassVar

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from trainer.curate.filter import Drop
from trainer.recipe import Recipe
from trainer.recipe.curation import LengthSettings
from trainer.rows import Row
from trainer.tokens import Encoder


class Length:
    """Prompt and answer fit; a cut answer would teach to stop early."""

    version: ClassVar[int] = 1

    def __init__(self, settings: LengthSettings, recipe: Recipe) -> None:
        self._most = settings.max_tokens or recipe.training.max_tokens
        base = BaseModel.find(recipe.base_model)
        self._encode = Encoder(base, template(recipe.template), recipe.format)

    def __call__(self, row: Row) -> Row | Drop:
        length = len(self._encode(row).ids)
        return row if length <= self._most else Drop("too_long", f"{length} tokens")
