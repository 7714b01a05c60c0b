"""headrace-trainer router train"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from proxy.protocol.calibration import NEVER
from trainer.commands.shared import Commands, console, existing
from trainer.errors import TrainerError


def add(commands: Commands) -> None:
    """Add the command."""
    about = "which domain a question belongs to, where its tools do not say"
    router = commands.add_parser("router", help=about, description=about)
    steps = router.add_subparsers(required=True, metavar="COMMAND")
    train = steps.add_parser("train", help="learn it from the record")
    train.add_argument("--record", type=Path, required=True, help="directory of the record")
    train.add_argument("--out", type=Path, required=True, help="file for `defaults.router.model`")
    train.add_argument(
        "--target-error",
        type=float,
        default=0.05,
        help="as in routes.yaml, for the report: share of the guesses followed that may be wrong"
        " (%(default)s)",
    )
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    try:
        from trainer import router
    except ImportError as error:
        raise TrainerError(
            f"a router needs scikit-learn and mmh3 ({error}); run `make train-setup`"
        ) from error
    trained = router.train(
        router.examples(router.recorded(existing(options.record))), options.target_error
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    trained.model.write(options.out)
    report = trained.report
    table = Table("on questions that it has not seen", "")
    table.add_row("likeliest domain is right", str(report.right))
    never = report.floor == NEVER
    table.add_row("sure enough from", "never" if never else f"{report.floor:.3f}")
    table.add_row("sure enough", str(report.followed))
    table.add_row("right where sure enough", str(report.right_where_followed))
    console.print(", ".join(f"{domain}: {n}" for domain, n in report.questions.items()))
    console.print(table)
    console.print(f"{options.out}: name it in routes.yaml, `defaults.router.model`")
