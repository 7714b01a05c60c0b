"""headrace-trainer dataset build, show, diff, why, taint, export"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from proxy.protocol import tombstones
from trainer import dataset, pipeline, rows
from trainer.commands.rows import export
from trainer.commands.shared import Commands, console, existing, tell
from trainer.curate import report
from trainer.curate.build import Watch
from trainer.dataset import SIDES, Fate
from trainer.errors import DatasetError
from trainer.formats import FORMATS
from trainer.recipe import find as find_recipe
from trainer.sources.base import Skips

TAINTED = 4
"""Exit code of `dataset taint` where something is."""
_DIRECTORY = "directory of a dataset"


def add(commands: Commands) -> None:
    """Add the command with its own commands."""
    ours = commands.add_parser("dataset", help="build datasets, and look into them")
    of = ours.add_subparsers(required=True, metavar="COMMAND")
    _add_build(of)
    show = of.add_parser("show", help="the funnel, what was dropped and why")
    show.add_argument("dataset", type=Path, help=_DIRECTORY)
    show.add_argument("--html", type=Path, help="write it as a page, with samples")
    show.set_defaults(run=_show)
    diff = of.add_parser("diff", help="what changed from one dataset to another")
    diff.add_argument("first", type=Path, help=_DIRECTORY)
    diff.add_argument("second", type=Path, help="of the later one")
    diff.set_defaults(run=_diff)
    why = of.add_parser("why", help="in which step a row stayed or fell")
    why.add_argument("dataset", type=Path, help=_DIRECTORY)
    why.add_argument("row", help="id of a row or of an exchange, or a row's source")
    why.set_defaults(run=_why)
    taint = of.add_parser("taint", help="mark datasets of which exchanges were erased since")
    taint.add_argument("datasets", type=Path, nargs="+", help="their directories")
    taint.add_argument("--record", type=Path, required=True, help="the record's directory")
    taint.set_defaults(run=_taint)
    exporting = of.add_parser("export", help="write a side in a format that others read")
    exporting.add_argument("dataset", type=Path, help=_DIRECTORY)
    exporting.add_argument("--side", choices=SIDES, default="train", help="(%(default)s)")
    exporting.add_argument("--format", choices=FORMATS, default="openai", help="(%(default)s)")
    exporting.add_argument("--out", type=Path, required=True, help="file to write")
    exporting.set_defaults(run=_export)


def _add_build(of: Commands) -> None:
    build = of.add_parser("build", help="read a recipe's sources, filter, split, write")
    build.add_argument(
        "--recipe", required=True, help="a YAML file, or the name of a shipped recipe"
    )
    build.add_argument("--out", type=Path, required=True, help="directory to write the dataset to")
    build.add_argument(
        "--on", default="1", help="cores for the filters: a number, `all`, or `ray` (%(default)s)"
    )
    build.add_argument("--html", type=Path, help="write the report as a page, too")
    build.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> int:
    skips = Skips()
    with _progress() as watch:
        pipeline.build(find_recipe(options.recipe), options.out, skips, options.on, watch)
    _told(options.out, options.html)
    return tell(skips)


@contextmanager
def _progress() -> Iterator[Watch]:
    """A bar for each step, as it begins."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bars = {}

        def watch(step: str, done: int, total: int | None) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
            progress.update(bars[step], completed=done)

        yield watch


def _show(options: argparse.Namespace) -> None:
    _told(options.dataset, options.html)


def _told(directory: Path, page: Path | None) -> None:
    shown = (
        *(dataset.manifest(directory), dataset.taint(directory)),
        dataset.openings(directory),
    )
    console.print(report.tables(shown[0]))
    for line in report.facts(*shown):
        console.print(line, soft_wrap=True, highlight=False)
    if page is not None:
        page.write_text(report.html(*shown))
        console.print(f"page: {page}")


def _diff(options: argparse.Namespace) -> None:
    changed = dataset.diff(options.first, options.second)
    table = Table("side", "added", "removed")
    for side in sorted({*changed.added, *changed.removed}):
        table.add_row(side, f"{changed.added.get(side, 0)}", f"{changed.removed.get(side, 0)}")
    if table.row_count:
        console.print(table)
    for move, count in changed.moved.items():
        console.print(f"{count} rows moved {move}")
    _list({"recipe": changed.recipe, "versions": changed.versions, "steps": changed.steps})
    if not table.row_count and not changed.moved:
        console.print("the same rows on the same sides")


def _list(named: Mapping[str, list[str]]) -> None:
    for name, lines in named.items():
        for line in lines:
            console.print(f"{name}: {line}", soft_wrap=True, highlight=False)


def _why(options: argparse.Namespace) -> None:
    found = dataset.why(options.dataset, options.row)
    if not found:
        raise DatasetError(
            f"{options.dataset}: no row, exchange or source {options.row!r} was read"
        )
    for fate in found:
        console.print(_sentence(fate), soft_wrap=True, highlight=False)


def _sentence(fate: Fate) -> str:
    named = f"{fate.row} ({', '.join(filter(None, (fate.exchange, fate.source)))})"
    if not fate.reason:
        return f"{named} passed every filter and is on the side {fate.step}"
    detail = f": {fate.detail}" if fate.detail else ""
    return f"{named} fell in {fate.step}, {fate.reason}{detail}"


def _taint(options: argparse.Namespace) -> int:
    erased = tombstones.erased(existing(options.record))
    found = {directory: dataset.find_taint(directory, erased) for directory in options.datasets}
    for directory, taint in found.items():
        if taint is None:
            console.print(f"{directory}: clean")
        else:
            counts = ", ".join(f"{n} of {side}" for side, n in taint.rows.items())
            console.print(f"{directory}: {taint.exchanges} erased exchanges, rows: {counts}")
    return TAINTED if any(found.values()) else 0


def _export(options: argparse.Namespace) -> int:
    skips = Skips()
    said = dataset.manifest(options.dataset)
    if dataset.taint(options.dataset) is not None:
        raise DatasetError(f"{options.dataset} is tainted; build it again")
    read = rows.read(options.dataset / f"{options.side}.jsonl")
    count = export(read, options.format, options.out, skips)
    console.print(f"{count} of {said.rows[options.side]} rows in {options.out}")
    return tell(skips)
