"""A recipe: every knob of a run, with unit and source. An unknown key is an error with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

from trainer.errors import RecipeError
from trainer.recipe.curation import FilterSettings, SplitSettings, VarietySettings
from trainer.recipe.gate import GateSettings
from trainer.recipe.sources import BfclSettings, SourceSettings
from trainer.recipe.training import LoraSettings, TrainingSettings

__all__ = [
    "BfclSettings",
    "FilterSettings",
    "GateSettings",
    "LoraSettings",
    "Recipe",
    "SourceSettings",
    "SplitSettings",
    "TrainingSettings",
    "VarietySettings",
    "read",
]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run, from source to bundle."""

    domain: str
    base_model: str = "smollm2-135m-instruct"
    format: Literal["structured", "hermes"]
    template: str
    """Template to freeze into the bundle, one of proxy/protocol/formats/templates."""
    sources: Annotated[list[SourceSettings], msgspec.Meta(min_length=1)]
    """Read one after the other."""
    filters: FilterSettings = FilterSettings()
    split: SplitSettings = SplitSettings()
    variety: VarietySettings = VarietySettings()
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    seed: int = 0


def read(path: Path) -> Recipe:
    """The recipe in a YAML file; raises RecipeError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), Recipe)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error
