"""headrace-trainer gate"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table
from rich.text import Text

from proxy.protocol import adapter
from trainer import dataset, gate
from trainer.commands.shared import Commands, console
from trainer.errors import GateError
from trainer.evaluate import Report, read
from trainer.gate_rules import Count, Evidence
from trainer.parity import parity
from trainer.recipe import GateSettings
from trainer.recipe import find as find_recipe

_MARKS = {"holds": "✓", "fails": "✗", "open": "?", "no reason": "="}


def add(commands: Commands) -> None:
    """Add the command."""
    gate = commands.add_parser("gate", help="decide on a candidate by its evaluation's reports")
    gate.add_argument(
        "--candidate",
        type=Path,
        action="append",
        required=True,
        metavar="REPORT",
        help="what `evaluate --out` wrote of it; again for each side",
    )
    gate.add_argument(
        "--champion",
        type=Path,
        action="append",
        default=[],
        metavar="REPORT",
        help="the same of it",
    )
    gate.add_argument(
        "--cloud", type=Path, action="append", default=[], metavar="REPORT", help="the same of it"
    )
    gate.add_argument("--recipe", help="whose section `gate` holds the rules")
    gate.add_argument("--dataset", type=Path, help="to compare prompts, and for the sealed side")
    gate.add_argument("--bundle", type=Path, help="the candidate's, to compare prompts")
    gate.add_argument("--canaries", type=Path, help="what `evaluate --probes` wrote of them")
    gate.add_argument("--approved-by", default="", help="who approves what the rules promote")
    gate.add_argument("--out", type=Path, help="file for the verdict in JSON")
    gate.set_defaults(run=_gate)


def _gate(options: argparse.Namespace) -> None:
    settings = find_recipe(options.recipe).gate if options.recipe else GateSettings()
    evidence = Evidence(
        candidate=_reports(options.candidate),
        champion=_reports(options.champion),
        cloud=_reports(options.cloud),
        parity=_parity(options),
        canaries=_canaries(options.canaries),
        sealed=any(read(path).side == "sealed" for path in options.candidate),
    )
    verdict = gate.decide(evidence, settings, options.approved_by)
    _show(verdict)
    if options.dataset and settings.sealed:
        _tell_of_the_sealed_side(verdict, options.dataset, settings)
    if options.out:
        gate.write(verdict, options.out)


def _reports(paths: list[Path]) -> list[Report]:
    """Raises GateError for reports of different datasets: their items are not the same."""
    found = [read(path) for path in paths]
    if len({report.dataset for report in found}) > 1:
        raise GateError("the reports are of different datasets; evaluate all on one")
    return found


def _parity(options: argparse.Namespace) -> Count | None:
    if not (options.bundle and options.dataset):
        return None
    held_out = dataset.read(options.dataset)
    return parity(adapter.read(options.bundle), [*held_out.seen, *held_out.unseen])


def _canaries(path: Path | None) -> Count | None:
    if path is None:
        return None
    asked = read(path)
    return Count(sum(not answer.score.call_exact for answer in asked.answers), len(asked.answers))


def _show(verdict: gate.Verdict) -> None:
    decision = Text(verdict.decision, "bold")
    console.print(decision, "", verdict.sentence, highlight=False)
    table = Table("", "rule", "what was found", show_edge=False)
    for rule in verdict.rules:
        table.add_row(_MARKS[rule.state], rule.name, rule.sentence)
    console.print(table)
    console.print(verdict.power, highlight=False)


def _tell_of_the_sealed_side(
    verdict: gate.Verdict, directory: Path, settings: GateSettings
) -> None:
    opened = len(dataset.openings(directory))
    if verdict.decision == "promote" and not verdict.sealed:
        console.print(f"The sealed side may be opened for {verdict.candidate}, once.")
    if opened >= settings.sealed_openings:
        console.print(f"The sealed side was opened {opened} times and is worn: draw a new one.")
