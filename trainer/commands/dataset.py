"""headrace-trainer dataset"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer import pipeline
from trainer.commands.shared import Commands, console, find_recipe, tell
from trainer.dataset import SIDES
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    build = commands.add_parser("dataset", help="read a recipe's source, filter, split, write")
    build.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    build.add_argument("--out", type=Path, required=True, help="directory to write the dataset to")
    build.set_defaults(run=_dataset)


def _dataset(options: argparse.Namespace) -> int:
    skips = Skips()
    built = pipeline.build(find_recipe(options.recipe), options.out, skips)
    for side in SIDES:
        rows = getattr(built, side)
        console.print(
            f"{side:>10}  {len(rows):5} rows, {sum(not r.calls for r in rows)} of them call nothing"
        )
    for reason, count in built.dropped.items():
        console.print(f"   dropped  {count:5} {reason}")
    console.print(f"fingerprint {built.fingerprint}")
    return tell(skips)
