"""headrace-trainer evaluate"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from proxy.protocol import adapter
from trainer import card, dataset, registry
from trainer.calibration import calibrate
from trainer.commands.shared import Commands, console
from trainer.dataset import SIDES
from trainer.errors import TrainerError
from trainer.evaluate import Report, Subject, balanced, evaluate, judged, write
from trainer.rows import Row


def add(commands: Commands) -> None:
    """Add the command."""
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


def _evaluate(options: argparse.Namespace) -> None:
    heldconsole = dataset.read(options.dataset)
    reports = []
    for side in options.side or ["seen", "unseen"]:
        rows = balanced(getattr(heldconsole, side), options.most)
        for subject in map(Subject.parse, options.subject or ["base!", "base"]):
            reports.append(_asked(rows, subject, side, options))
    console.print(_table(reports))
    if options.out:
        for report in reports:
            write(report, options.out / f"{_file_name(report)}.json")
    if options.calibrate:
        _calibrate(options.calibrate, heldconsole, reports)
    if options.describe:
        _describe(options.describe, heldconsole, reports)


def _file_name(report: Report) -> str:
    return f"{report.subject}-{report.side}".replace(", ", "-").replace(" ", "-")


def _asked(rows: list[Row], subject: Subject, side: str, options: argparse.Namespace) -> Report:
    with Progress(console=console, transient=True) as progress:
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


def _describe(bundle: Path, heldconsole: dataset.Dataset, reports: Sequence[Report]) -> None:
    manifest = adapter.read(bundle).manifest
    if manifest.dataset_fingerprint != heldconsole.fingerprint:
        raise TrainerError(f"{bundle} was trained on another dataset; its figures would mislead")
    metrics = {
        f"{report.side}/{name}": figure.share
        for report in reports
        if report.subject == Subject(manifest.id)
        for name, figure in report.figures.items()
        if figure.n
    }
    counts = {side: len(getattr(heldconsole, side)) for side in SIDES}
    registry.describe(bundle, metrics, card.card(manifest, counts, reports))


def _calibrate(bundle: Path, heldconsole: dataset.Dataset, reports: Sequence[Report]) -> None:
    own = [report for report in reports if report.subject == Subject(bundle.name)]
    measured = calibrate(judged(own), "labels", heldconsole.fingerprint)
    adapter.write_calibration(bundle, measured)
    table = Table("confidence at least", "calls", "wrong", "at most, with 95 %")
    for step in measured.steps:
        table.add_row(f"{step.floor:.3f}", f"{step.served}", f"{step.wrong}", f"{step.upper:.0%}")
    console.print(table)
