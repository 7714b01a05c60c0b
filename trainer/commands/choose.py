"""headrace-trainer choose"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from trainer import choose
from trainer.choose import Choice, Option
from trainer.commands.shared import Commands, console
from trainer.errors import GateError
from trainer.evaluate import Report, read
from trainer.recipe import GateSettings
from trainer.recipe import find as find_recipe


def add(commands: Commands) -> None:
    """Add the command."""
    choose = commands.add_parser(
        "choose", help="of several adapters, or two in turn, the one that the gate shall decide on"
    )
    choose.add_argument(
        "--option",
        type=Path,
        action="append",
        required=True,
        metavar="REPORT",
        help="what `evaluate --out` wrote of an adapter, the simplest first; repeatable",
    )
    choose.add_argument(
        "--in-turn",
        action="store_true",
        help="the first adapter and, where it fails, another one, are options too",
    )
    choose.add_argument("--floor", type=float, help="confidence below which a call has failed")
    choose.add_argument("--recipe", help="whose section `gate` says what is right")
    choose.add_argument("--out", type=Path, help="folder for the choice, and the chosen's reports")
    choose.set_defaults(run=_choose)


def _choose(options: argparse.Namespace) -> None:
    settings = find_recipe(options.recipe).gate if options.recipe else GateSettings()
    found = _options(options)
    choice = choose.choose(found, settings)
    _show(choice)
    if options.out:
        (chosen,) = (one for one in found if one.name == choice.chosen)
        _write(options.out, choice, chosen)


def _options(options: argparse.Namespace) -> list[Option]:
    by_name: dict[str, list[Report]] = {}
    for report in map(read, options.option):
        by_name.setdefault(str(report.subject), []).append(report)
    alone = [Option(reports, (reports[0].subject.adapter,)) for reports in by_name.values()]
    if len(alone) < 2:
        raise GateError("one option is no choice; name the reports of another adapter, too")
    if len({report.dataset for one in alone for report in one.reports}) > 1:
        raise GateError("the reports are of different datasets; evaluate all on one")
    if not options.in_turn:
        return alone
    return alone + [choose.in_turn(alone[0], other, options.floor) for other in alone[1:]]


def _show(choice: Choice) -> None:
    console.print(f"{choice.chosen}\n{choice.sentence}", highlight=False, markup=False)
    if choice.routes:
        console.print(f"\nroutes.yaml:\n{choice.routes}", highlight=False, markup=False)


def _write(directory: Path, choice: Choice, chosen: Option) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for report in chosen.reports:
        path = directory / f"chosen-{report.side}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    encoded = msgspec.json.format(msgspec.json.encode(choice)) + b"\n"
    (directory / "choice.json").write_bytes(encoded)
