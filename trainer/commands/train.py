"""headrace-trainer train"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer import pipeline
from trainer.commands.shared import Commands, console, tell
from trainer.recipe import find as find_recipe
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    train = commands.add_parser("train", help="train an adapter and write its bundle")
    train.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    train.add_argument(
        "--dataset", type=Path, help="a dataset that is there; the recipe's is built otherwise"
    )
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory of the run: dataset, metrics, checkpoint; a stopped run goes on there",
    )
    train.add_argument("--adapters", type=Path, default=Path("adapters"), help="where bundles live")
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    read = find_recipe(options.recipe)
    engine = pipeline.engine(read)
    options.out.mkdir(parents=True, exist_ok=True)
    options.adapters.mkdir(parents=True, exist_ok=True)
    skips = Skips()
    bundle = pipeline.train(read, engine, options.out, options.adapters, skips, options.dataset)
    console.print(f"{bundle}: next: headrace-trainer evaluate, gate, promote {bundle.name}")
    return tell(skips)
