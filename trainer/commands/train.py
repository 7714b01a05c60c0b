"""headrace-trainer train"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer import pipeline
from trainer.commands.shared import Commands, console, find_recipe, tell
from trainer.errors import TrainerError
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    train = commands.add_parser("train", help="train an adapter and write its bundle")
    train.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    train.add_argument(
        "--out", type=Path, required=True, help="directory of the run: dataset, metrics"
    )
    train.add_argument("--adapters", type=Path, default=Path("adapters"), help="where bundles live")
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    read = find_recipe(options.recipe)
    try:
        from trainer.engines.peft import PeftEngine
    except ImportError as error:
        raise TrainerError(
            f"training needs torch, transformers and peft ({error}); run `make train-setup`"
        ) from error
    options.out.mkdir(parents=True, exist_ok=True)
    options.adapters.mkdir(parents=True, exist_ok=True)
    skips = Skips()
    bundle = pipeline.train(read, PeftEngine(), options.out, options.adapters, skips)
    console.print(f"{bundle}: evaluate it, then `headrace-trainer promote {bundle.name}`")
    return tell(skips)
