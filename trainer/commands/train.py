"""headrace-trainer train"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from proxy.protocol.base_model import BaseModel
from trainer import pipeline
from trainer.commands.shared import Commands, console, find_recipe, tell
from trainer.engines.base import Engine
from trainer.errors import TrainerError
from trainer.recipe import DistilSettings, Recipe
from trainer.sources.base import Skips

_REMEDY = {
    "peft": "run `make train-setup`",
    "unsloth": "install the extra `unsloth` in an environment of its own",
}


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
    engine = _engine(read)
    options.out.mkdir(parents=True, exist_ok=True)
    options.adapters.mkdir(parents=True, exist_ok=True)
    skips = Skips()
    bundle = pipeline.train(read, engine, options.out, options.adapters, skips, options.dataset)
    console.print(f"{bundle}: next: headrace-trainer evaluate, gate, promote {bundle.name}")
    return tell(skips)


def _engine(read: Recipe) -> Engine:
    """The engine, whose libraries are imported here and not before."""
    name = read.training.engine
    try:
        if read.distil is not None:
            return _distilling(read, read.distil)
        engine: Engine = importlib.import_module(f"trainer.engines.{name}").ENGINE
        return engine
    except ImportError as error:
        raise TrainerError(
            f"training with {name} needs more than is installed ({error}); {_REMEDY[name]}"
        ) from error


def _distilling(read: Recipe, settings: DistilSettings) -> Engine:
    from trainer.distil import distillation
    from trainer.engines.peft import PeftEngine

    return PeftEngine(distillation(settings, BaseModel.find(read.base_model)))
