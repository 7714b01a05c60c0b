"""headrace-trainer trace"""

from __future__ import annotations

import argparse
import datetime
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.text import Text
from rich.tree import Tree

from trainer.commands.shared import Commands, console
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.registry import Entry, Registry
from trainer.sources.base import Skips
from trainer.sources.exchanges import open_shelf, translated
from trainer.trace import Answered, Lesson, Origin, Places, Trace, trace

_SHOWN = 10
"""Lines of one kind for people; `--json` has all."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "trace", help="from an answer to its adapter, run, dataset, rows, exchanges; and back"
    )
    parser.add_argument("name", help="id of an exchange (or its request), an adapter, or a row")
    parser.add_argument("--registry", default="adapters", help="a directory, or a bucket's URL")
    parser.add_argument(
        "--runs",
        type=Path,
        action="append",
        default=[],
        metavar="DIRECTORY",
        help="where datasets lie, at any depth; may be given again",
    )
    parser.add_argument(
        "--record",
        action="append",
        default=[],
        metavar="DIRECTORY",
        help="of a record; again for more",
    )
    parser.add_argument("--archive", help="of the record, if it is not in its directory")
    parser.add_argument(
        "--key", action="append", default=[], metavar="ID=FILE", help="of an encrypted record"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=_trace)


def _trace(options: argparse.Namespace) -> None:
    keys = dict(given.split("=", 1) for given in options.key)
    settings = [
        ExchangesSettings(directory=directory, archive=options.archive, keys=keys)
        for directory in options.record
    ]
    with translated(", ".join(options.record)):
        shelves = [open_shelf(one, Skips()) for one in settings]
        places = Places.of(Registry(options.registry), options.runs, shelves)
        found = trace(options.name, places)
    if options.json:
        console.print_json(msgspec.json.encode(found).decode())
    else:
        console.print(_tree(found), soft_wrap=True, highlight=False)


# ---------------------------------------------------------------- for people


def _tree(found: Trace) -> Tree:
    tree = Tree(Text(f"{found.kind} {found.name}", "bold"))
    if found.answered is not None:
        tree.add(_answer(found.answered))
    if found.origin is not None:
        _grow(tree, found.origin)
    if found.lessons:
        lessons = tree.add(f"rows made of it: {len(found.lessons)}")
        for line in _shown([_lesson(one) for one in found.lessons]):
            lessons.add(line)
    if found.kind != "adapter":
        learners = tree.add(f"adapters that learnt from it: {len(found.learners)}")
        for line in _shown([_adapter(entry) for entry in found.learners]):
            learners.add(line)
    for what in found.unknown:
        tree.add(Text.assemble(("unknown:", "yellow"), " ", what))
    return tree


def _answer(answered: Answered) -> str:
    at = datetime.datetime.fromtimestamp(answered.started_at, datetime.UTC)
    by = answered.adapter or "no adapter"
    backend = f" on {answered.backend}" if answered.backend else ""
    return f"answered by {by}{backend}, {answered.domain}, {answered.outcome}, {at:%Y-%m-%d %H:%M}"


def _grow(tree: Tree, origin: Origin) -> None:
    branch = tree.add(f"adapter {_adapter(origin.entry)}")
    if origin.entry.run:
        branch.add(f"run {origin.entry.run}")
    rows = ", ".join(f"{count} {side}" for side, count in origin.rows.items() if count)
    held = branch.add(f"dataset {origin.entry.dataset}" + (f": {rows} rows" if rows else ""))
    for directory in origin.datasets:
        held.add(directory)
    exchanges = branch.add(f"exchanges that it learnt from: {len(origin.exchanges)}")
    for line in _shown(origin.exchanges):
        exchanges.add(line)


def _adapter(entry: Entry) -> str:
    roles = f", {', '.join(entry.roles)}" if entry.roles else ""
    taint = f", tainted by {entry.taint.exchanges} erased exchanges" if entry.taint else ""
    return f"{entry.id}{roles}{taint}"


def _lesson(lesson: Lesson) -> str:
    fate = f"on the side {lesson.side}" if lesson.side else f"dropped ({lesson.dropped})"
    return f"{lesson.row} {fate} of {lesson.dataset}"


def _shown(lines: list[str]) -> Iterator[str]:
    counted = Counter(lines)
    for line, count in list(counted.items())[:_SHOWN]:
        yield line if count == 1 else f"{line} ({count} times)"
    if len(counted) > _SHOWN:
        yield f"… and {len(counted) - _SHOWN} more (--json)"
