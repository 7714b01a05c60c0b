"""headrace-trainer prefer"""

from __future__ import annotations

import argparse
from pathlib import Path

from proxy.protocol import adapter
from trainer.commands.shared import Commands, console, tell
from trainer.errors import TrainerError
from trainer.recipe import find as find_recipe
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    prefer = commands.add_parser(
        "prefer", help="train an adapter further, on corrections and thumbs of the record"
    )
    prefer.add_argument("id", help="the adapter to start from")
    prefer.add_argument(
        "--recipe", required=True, help="a recipe with a source of the kind `exchanges`"
    )
    prefer.add_argument(
        "--by",
        choices=("dpo", "kto"),
        default="dpo",
        help="dpo learns from pairs of answers, kto from answers with a thumb",
    )
    prefer.add_argument("--out", type=Path, required=True, help="directory of the run")
    prefer.add_argument(
        "--adapters", type=Path, default=Path("adapters"), help="where bundles live (%(default)s)"
    )
    prefer.set_defaults(run=_prefer)


def _prefer(options: argparse.Namespace) -> int:
    read = find_recipe(options.recipe)
    try:
        from trainer.prefer import train
    except ImportError as error:
        raise TrainerError(
            f"preferences need more than is installed ({error}); run `make train-setup`"
        ) from error
    parent = adapter.read(options.adapters / options.id)
    options.out.mkdir(parents=True, exist_ok=True)
    skips = Skips()
    bundle = train(read, parent, options.by, options.out, options.adapters, skips)
    console.print(f"{bundle}: evaluate it beside {parent.id} before it is promoted")
    return tell(skips)
