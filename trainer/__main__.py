"""`headrace-trainer`: dataset, train, evaluate, promote."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from proxy.protocol import adapter
from proxy.protocol.adapter import AdapterError
from proxy.protocol.base_model import BaseModelError
from proxy.protocol.formats.base import UnknownTemplate
from trainer import card, dataset, pipeline, recipe, registry
from trainer.calibration import calibrate
from trainer.dataset import SIDES
from trainer.errors import RecipeError, TrainerError
from trainer.evaluate import Report, Subject, balanced, evaluate, judged, write
from trainer.rows import Row

RECIPES = Path(__file__).parent / "recipes"
_out = Console()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what it says, 1 with one line on stderr when not."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (TrainerError, AdapterError, BaseModelError, UnknownTemplate) as error:
        print(f"headrace-trainer: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "headrace-trainer", description="Traffic into better adapters."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("dataset", help="read a recipe's source, filter, split, write")
    build.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    build.add_argument("--out", type=Path, required=True, help="directory to write the dataset to")
    build.set_defaults(run=_dataset)

    train = commands.add_parser("train", help="train an adapter and write its bundle")
    train.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    train.add_argument(
        "--out", type=Path, required=True, help="directory of the run: dataset, metrics"
    )
    train.add_argument("--adapters", type=Path, default=Path("adapters"), help="where bundles live")
    train.set_defaults(run=_train)

    judge = commands.add_parser("evaluate", help="ask a server a dataset's held-out rows")
    judge.add_argument("--dataset", type=Path, required=True)
    judge.add_argument("--base-url", default="http://127.0.0.1:8080/v1")
    judge.add_argument(
        "--subject",
        action="append",
        help="adapter id or `base`, with `!` for tool_choice required; may be repeated",
    )
    judge.add_argument("--side", action="append", choices=("validation", "seen", "unseen"))
    judge.add_argument("--most", type=int, default=150, help="rows of a side, at most")
    judge.add_argument("--concurrency", type=int, default=4)
    judge.add_argument("--out", type=Path, help="directory for the reports in JSON")
    judge.add_argument("--describe", type=Path, help="bundle whose card shall show the figures")
    judge.add_argument(
        "--calibrate", type=Path, help="bundle that shall know how sure its calls must be"
    )
    judge.set_defaults(run=_evaluate)

    promote = commands.add_parser("promote", help="let a bundle serve its domain")
    promote.add_argument("id")
    promote.add_argument("--adapters", type=Path, default=Path("adapters"))
    promote.set_defaults(run=_promote)
    return parser


def _dataset(options: argparse.Namespace) -> None:
    built = pipeline.build(_recipe(options.recipe), options.out)
    for side in SIDES:
        rows = getattr(built, side)
        _out.print(
            f"{side:>10}  {len(rows):5} rows, {sum(not r.calls for r in rows)} of them call nothing"
        )
    for reason, count in built.dropped.items():
        _out.print(f"   dropped  {count:5} {reason}")
    _out.print(f"fingerprint {built.fingerprint}")


def _recipe(name: str) -> recipe.Recipe:
    shipped = RECIPES / f"{name}.yaml"
    if not shipped.exists() and not Path(name).exists():
        known = ", ".join(path.stem for path in sorted(RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name!r}; shipped ones: {known}")
    return recipe.read(shipped if shipped.exists() else Path(name))


def _train(options: argparse.Namespace) -> None:
    read = _recipe(options.recipe)
    try:
        from trainer.engines.peft import PeftEngine
    except ImportError as error:
        raise TrainerError(
            f"training needs torch, transformers and peft ({error}); run `make train-setup`"
        ) from error
    options.out.mkdir(parents=True, exist_ok=True)
    options.adapters.mkdir(parents=True, exist_ok=True)
    bundle = pipeline.train(read, PeftEngine(), options.out, options.adapters)
    _out.print(f"{bundle}: evaluate it, then `headrace-trainer promote {bundle.name}`")


def _evaluate(options: argparse.Namespace) -> None:
    held_out = dataset.read(options.dataset)
    reports = []
    for side in options.side or ["seen", "unseen"]:
        rows = balanced(getattr(held_out, side), options.most)
        for subject in map(Subject.parse, options.subject or ["base!", "base"]):
            reports.append(_asked(rows, subject, side, options))
    _out.print(_table(reports))
    if options.out:
        for report in reports:
            write(report, options.out / f"{_file_name(report)}.json")
    if options.calibrate:
        _calibrate(options.calibrate, held_out, reports)
    if options.describe:
        _describe(options.describe, held_out, reports)


def _file_name(report: Report) -> str:
    return f"{report.subject}-{report.side}".replace(", ", "-").replace(" ", "-")


def _asked(rows: list[Row], subject: Subject, side: str, options: argparse.Namespace) -> Report:
    with Progress(console=_out, transient=True) as progress:
        bar = progress.add_task(f"{subject}, {side}", total=len(rows))
        return asyncio.run(
            evaluate(
                rows,
                base_url=options.base_url,
                subject=subject,
                side=side,
                concurrency=options.concurrency,
                progress=lambda: progress.advance(bar),
            )
        )


def _table(reports: Sequence[Report]) -> Table:
    table = Table("", *(f"{report.subject}, {report.side}" for report in reports))
    for name in reports[0].figures:
        table.add_row(name, *(str(report.figures[name]) for report in reports))
    return table


def _describe(bundle: Path, held_out: dataset.Dataset, reports: Sequence[Report]) -> None:
    manifest = adapter.read(bundle).manifest
    if manifest.dataset_fingerprint != held_out.fingerprint:
        raise TrainerError(f"{bundle} was trained on another dataset; its figures would mislead")
    metrics = {
        f"{report.side}/{name}": figure.share
        for report in reports
        if report.subject == Subject(manifest.id)
        for name, figure in report.figures.items()
        if figure.n
    }
    counts = {side: len(getattr(held_out, side)) for side in SIDES}
    registry.describe(bundle, metrics, card.card(manifest, counts, reports))


def _calibrate(bundle: Path, held_out: dataset.Dataset, reports: Sequence[Report]) -> None:
    own = [report for report in reports if report.subject == Subject(bundle.name)]
    measured = calibrate(judged(own), "labels", held_out.fingerprint)
    adapter.write_calibration(bundle, measured)
    table = Table("confidence at least", "calls", "wrong", "at most, with 95 %")
    for step in measured.steps:
        table.add_row(f"{step.floor:.3f}", f"{step.served}", f"{step.wrong}", f"{step.upper:.0%}")
    _out.print(table)


def _promote(options: argparse.Namespace) -> None:
    bundle = adapter.read(options.adapters / options.id)
    if bundle.id != options.id:
        raise TrainerError(f"{bundle.path} holds {bundle.id}; name the directory so")
    champions = adapter.read_champions(options.adapters)
    before = champions.get(bundle.manifest.domain, "none")
    adapter.write_champions(options.adapters, champions | {bundle.manifest.domain: bundle.id})
    _out.print(f"{bundle.manifest.domain}: {before} → {bundle.id}")


if __name__ == "__main__":
    sys.exit(main())
