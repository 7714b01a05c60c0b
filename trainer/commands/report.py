"""headrace-trainer report show, report index"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer import dataset, gate
from trainer.commands.shared import Commands, console
from trainer.evaluate import Report, read
from trainer.gate_rules import Evidence
from trainer.recipe import GateSettings
from trainer.report import evaluation, index
from trainer.report.evaluation import Version
from trainer.rows import Row


def add(commands: Commands) -> None:
    """Add the command."""
    report = commands.add_parser("report", help="evaluations as pages for people")
    kinds = report.add_subparsers(required=True, metavar="KIND")
    show = kinds.add_parser("show", help="one evaluation: verdict, figures, tools, worst errors")
    for role in ("candidate", "champion", "cloud", "history"):
        show.add_argument(
            f"--{role}",
            type=Path,
            action="append",
            default=[],
            required=role == "candidate",
            metavar="REPORT",
        )
    show.add_argument("--verdict", type=Path, help="file by `gate --out`; default: decided anew")
    show.add_argument("--dataset", type=Path, help="whose rows show what was asked")
    show.add_argument("--out", type=Path, required=True, help="directory for the page")
    show.set_defaults(run=_show)
    every = kinds.add_parser("index", help="all reports below a directory on one page")
    every.add_argument("directory", type=Path, help="with reports of `report show` in it")
    every.set_defaults(run=_index)


def _show(options: argparse.Namespace) -> None:
    evidence = Evidence(
        candidate=_reports(options.candidate),
        champion=_reports(options.champion),
        cloud=_reports(options.cloud),
    )
    verdict = (
        gate.read(options.verdict) if options.verdict else gate.decide(evidence, GateSettings())
    )
    history = [_version(one) for one in _reports(options.history)]
    twin = evaluation.report(evidence, verdict, _rows(options.dataset), history)
    console.print(str(evaluation.write(twin, options.out)), soft_wrap=True)


def _index(options: argparse.Namespace) -> None:
    console.print(str(index.write(options.directory)), soft_wrap=True)


def _reports(paths: list[Path]) -> list[Report]:
    return [read(path) for path in paths]


def _version(report: Report) -> Version:
    name = f"{report.subject}, {report.side}"
    return Version(name=name, figure=report.figures["call exact"])


def _rows(directory: Path | None) -> dict[str, Row]:
    if directory is None:
        return {}
    held_out = dataset.read(directory)
    return {row.id: row for row in (*held_out.validation, *held_out.seen, *held_out.unseen)}
