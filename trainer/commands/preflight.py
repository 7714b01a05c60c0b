"""headrace-trainer preflight"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer import pipeline
from trainer.commands.shared import Commands, console, tell
from trainer.errors import PreflightError
from trainer.recipe import find as find_recipe
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    preflight = commands.add_parser(
        "preflight", help="check rows, format, adapter, memory and disk; trains nothing"
    )
    preflight.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    preflight.add_argument(
        "--dataset", type=Path, help="a dataset that is there; the recipe's is built otherwise"
    )
    preflight.add_argument("--out", type=Path, default=Path(), help="directory of the run")
    preflight.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    skips = Skips()
    seen = pipeline.preflight(find_recipe(options.recipe), options.dataset, options.out, skips)
    table = Table("", "check", "seen")
    for check in seen:
        table.add_row("ok" if check.ok else Text("no", "red"), check.name, check.told)
    console.print(table)
    faults = [check.name for check in seen if not check.ok]
    if faults:
        raise PreflightError(f"not fit to be trained: {', '.join(faults)}")
    return tell(skips)
