"""What the commands have in common: the console, finding a recipe, telling of skipped rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from trainer import recipe
from trainer.errors import RecipeError
from trainer.sources.base import Skips

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds itself."""

RECIPES = Path(__file__).parent.parent / "recipes"
console = Console()
SKIPPED = 3
"""Exit code of a command that did its work, but could not read every row."""


def find_recipe(name: str) -> recipe.Recipe:
    """The recipe of a YAML file, or of the shipped one with this name."""
    return recipe.read(recipe_path(name))


def recipe_path(name: str) -> Path:
    """Where it is written; raises RecipeError for a name that there is not."""
    shipped = RECIPES / f"{name}.yaml"
    if not shipped.exists() and not Path(name).exists():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name!r}; shipped ones: {known}")
    return shipped if shipped.exists() else Path(name)


def tell(skips: Skips) -> int:
    """Print what could not be read, by reason; the command's exit code."""
    for reason, count in skips.left_out.most_common():
        console.print(f"  left out  {count:5} {reason}")
    for reason, count in skips.counts.most_common():
        console.print(f"   skipped  {count:5} {reason}")
        for skip in skips.told[reason]:
            console.print(f"            {skip}", style="dim", highlight=False)
    return SKIPPED if skips else 0
