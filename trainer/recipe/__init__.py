"""A recipe: every knob of a run, with unit and source. An unknown key is an error with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
import yaml

from trainer.errors import RecipeError, cause_of
from trainer.recipe.curation import FilterSettings, SplitSettings, VarietySettings
from trainer.recipe.gate import GateSettings
from trainer.recipe.sources import BfclSettings, SourceSettings
from trainer.recipe.training import (
    DecodingSettings,
    DistilSettings,
    LoraSettings,
    PreferenceSettings,
    TrainingSettings,
)

__all__ = [
    "BfclSettings",
    "DecodingSettings",
    "DistilSettings",
    "FilterSettings",
    "FormatName",
    "GateSettings",
    "LoraSettings",
    "PreferenceSettings",
    "Recipe",
    "SourceSettings",
    "SplitSettings",
    "TrainingSettings",
    "VarietySettings",
    "find",
    "read",
]

RECIPES = Path(__file__).parent.parent / "recipes"
"""Those that ship."""


FormatName: TypeAlias = Literal[
    "structured",
    "structured-echo",
    "structured-llama3",
    "structured-echo-llama3",
    "hermes",
    "llama3",
    "cep",
]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run, from source to bundle."""

    domain: str
    """What the adapter is for; its bundles are called `<domain>-v<N>`."""
    base_model: str = "smollm2-135m-instruct"
    """Name of a packaged base, path of a .gguf file, or of a directory as hubs have them."""
    format: FormatName
    """How calls are written (docs/formats.md)."""
    template: str
    """Template to freeze into the bundle, one of proxy/protocol/formats/templates."""
    formats: dict[FormatName, str] = {}
    """Further formats that rows may name, each with its template; `format` is that of the rest."""
    sources: Annotated[list[SourceSettings], msgspec.Meta(min_length=1)]
    """Read one after the other."""
    filters: FilterSettings = FilterSettings()
    split: SplitSettings = SplitSettings()
    variety: VarietySettings = VarietySettings()
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    decoding: DecodingSettings = DecodingSettings()
    preferences: PreferenceSettings = PreferenceSettings()
    distil: DistilSettings | None = None
    """A local teacher; None: the labels alone are learnt."""
    seed: int = 0
    """Of everything that is drawn: variations, order, the adapter's first weights."""


def read(path: Path) -> Recipe:
    """The recipe in a YAML file; raises RecipeError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), Recipe)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {cause_of(error)}") from error


def find(name: str, here: Path = Path()) -> Recipe:
    """The recipe of the shipped file with this name, or of a YAML file, named from `here`."""
    return read(path_of(name, here))


def path_of(name: str, here: Path = Path()) -> Path:
    """Where that recipe is written; raises RecipeError for a name that there is not."""
    shipped = RECIPES / f"{name}.yaml"
    if not shipped.exists() and not (here / name).exists():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name!r}; shipped ones: {known}")
    return shipped if shipped.exists() else here / name
