"""headrace-trainer recipe"""

from __future__ import annotations

import argparse

from rich.table import Table

from trainer.commands.shared import Commands, console
from trainer.recipe import RECIPES
from trainer.recipe import find as find_recipe
from trainer.recipe.explain import explain


def add(commands: Commands) -> None:
    """Add the command."""
    recipe = commands.add_parser("recipe", help="list recipes, or explain one, knob by knob")
    verbs = recipe.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("ls", help="recipes that ship").set_defaults(run=_list)
    one = verbs.add_parser("explain", help="each knob: value, unit, why")
    one.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    one.set_defaults(run=_explain)


def _list(options: argparse.Namespace) -> None:
    table = Table("recipe", "base model", "format", "what for")
    for path in sorted(RECIPES.glob("*.yaml")):
        read = find_recipe(path.stem)
        purpose = path.read_text().partition("\n")[0].removeprefix("#").strip()
        table.add_row(path.stem, read.base_model, read.format, purpose)
    console.print(table)


def _explain(options: argparse.Namespace) -> None:
    for knob in explain(find_recipe(options.recipe)):
        chosen = "default" if knob.default else "recipe"
        console.print(f"{knob.path} = {knob.value}  ({chosen})", highlight=False)
        console.print(f"    {knob.text}", highlight=False)
