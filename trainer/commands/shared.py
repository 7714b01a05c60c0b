"""What the commands have in common: the console, and finding a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from trainer import recipe
from trainer.errors import RecipeError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds itself."""

RECIPES = Path(__file__).parent.parent / "recipes"
console = Console()


def find_recipe(name: str) -> recipe.Recipe:
    """The recipe of a YAML file, or of the shipped one with this name."""
    shipped = RECIPES / f"{name}.yaml"
    if not shipped.exists() and not Path(name).exists():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name!r}; shipped ones: {known}")
    return recipe.read(shipped if shipped.exists() else Path(name))
