"""headrace-trainer import, export: rows of a recipe's sources to a file; a file to other formats"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.progress import Progress

from trainer import rows, sources
from trainer.commands.shared import Commands, console, tell
from trainer.errors import RecipeError
from trainer.formats import FORMATS
from trainer.formats.base import BadRow
from trainer.recipe import find as find_recipe
from trainer.recipe.sources import JsonlSettings, SourceSettings
from trainer.rows import Row
from trainer.sources import files
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add both commands."""
    importing = commands.add_parser(
        "import", help="read a recipe's sources, or files of one format, into one file of rows"
    )
    importing.add_argument("files", nargs="*", help="files or globs, where there is no recipe")
    importing.add_argument("--recipe", help="a YAML file, or the name of a shipped recipe")
    importing.add_argument(
        "--format", choices=FORMATS, default="openai", help="of the files (%(default)s)"
    )
    importing.add_argument("--license", help="of the files' rows; an SPDX id where there is one")
    importing.add_argument("--out", type=Path, required=True, help="file to write the rows to")
    importing.set_defaults(run=_import)
    exporting = commands.add_parser("export", help="write rows in a format that others read")
    exporting.add_argument("rows", type=Path, help="rows that `import` or `label` wrote")
    exporting.add_argument(
        "--format", choices=FORMATS, default="openai", help="to write (%(default)s)"
    )
    exporting.add_argument("--out", type=Path, required=True, help="file to write")
    exporting.set_defaults(run=_export)


def _import(options: argparse.Namespace) -> int:
    skips = Skips()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("rows", total=None)
        read = sources.rows(_settings(options), skips)
        count = rows.write(options.out, progress.track(read, task_id=bar))
    console.print(f"{count} rows in {options.out}")
    return tell(skips)


def _settings(options: argparse.Namespace) -> list[SourceSettings]:
    if options.recipe:
        return find_recipe(options.recipe).sources
    if not options.files or not options.license:
        raise RecipeError("name a --recipe, or files and their --license")
    return [JsonlSettings(paths=options.files, format=options.format, license=options.license)]


def _export(options: argparse.Namespace) -> int:
    skips = Skips()
    count = export(read_rows(options.rows, skips), options.format, options.out, skips)
    console.print(f"{count} rows in {options.out}")
    return tell(skips)


def export(rows: Iterable[Row], format: str, path: Path, skips: Skips) -> int:
    """Write rows in a format; those that it cannot say are skips. How many were written."""
    count = 0
    with path.open("wb") as file:
        for row in rows:
            try:
                file.write(FORMATS[format].write(row) + b"\n")
                count += 1
            except BadRow as error:
                skips.add(f"{row.id} ({row.source})", error.reason, str(error))
    return count


def read_rows(path: Path, skips: Skips) -> Iterator[Row]:
    """The rows of a file in our own format, one a line, as they are."""
    for line in files.read(path, skips):
        try:
            yield FORMATS["headrace"].read(line.content)
        except BadRow as error:
            skips.add(line.place, error.reason, str(error))
