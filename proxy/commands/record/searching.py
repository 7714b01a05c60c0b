"""headrace record query, stats, export: SQL over the record, and what it finds for others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.commands.record.opened import errors_told, extra, settings_of, shelf_of
from proxy.commands.shared import Commands, add_with_config, table
from proxy.errors import BadConfig
from proxy.protocol import visible

if TYPE_CHECKING:
    from proxy.record.query import Result

_ALIGNED = 200
"""Rows of a table whose columns are made equally wide; the rest follows in the same widths."""


def add(reading: Commands) -> None:
    """Add the commands."""
    text = "SQL over exchanges, attempts, calls, feedback and shadows"
    query = add_with_config(reading, "query", _query, text)
    query.add_argument("sql", help="one SELECT")
    query.add_argument("--json", action="store_true", help="one JSON object a row")
    stats = add_with_config(reading, "stats", _stats, "figures by domain")
    stats.add_argument("--json", action="store_true", help="one JSON object a domain")
    _add_export(add_with_config(reading, "export", _export, "exchanges for others to read"))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("openai-jsonl", "parquet"), required=True)
    parser.add_argument("--out", type=Path, help="file; needed for parquet (standard output)")
    parser.add_argument("--where", default="true", help="condition in SQL: \"domain = 'api'\"")


# ---------------------------------------------------------------- SQL


def _query(options: argparse.Namespace) -> int:
    return _search(options, options.sql, as_json=options.json)


def _stats(options: argparse.Namespace) -> int:
    with extra():
        from proxy.record.query import STATS
    return _search(options, STATS, as_json=options.json)


def _search(options: argparse.Namespace, sql: str, *, as_json: bool) -> int:
    with errors_told():
        shelf = shelf_of(settings_of(options.config))
        from proxy.record import query

        with query.opened(shelf) as connection:
            found = query.run(connection, sql)
            for line in _objects(found) if as_json else _cells(found):
                print(line)
    return 0


def _objects(found: Result) -> Iterator[str]:
    for batch in found.batches():
        for row in batch:
            values = dict(zip(found.columns, row, strict=True))
            yield visible.escaped(msgspec.json.encode(values, enc_hook=str).decode())


def _cells(found: Result) -> Iterator[str]:
    rows = (list(map(_cell, row)) for batch in found.batches() for row in batch)
    aligned = [found.columns, *islice(rows, _ALIGNED)]
    yield from table(aligned)
    yield from ("  ".join(map(visible.on_one_line, row)) for row in rows)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


# ---------------------------------------------------------------- export


def _export(options: argparse.Namespace) -> int:
    if options.format == "parquet" and options.out is None:
        raise BadConfig("a Parquet file is not for the screen; name one with --out")
    with errors_told():
        shelf = shelf_of(settings_of(options.config))
        from proxy.record import export

        if options.format == "parquet":
            print(f"{export.parquet(shelf, options.where, options.out)} exchanges")
            return 0
        with _output(options.out) as write:
            for line in export.openai_lines(shelf, options.where):
                write(line + b"\n")
    return 0


@contextmanager
def _output(path: Path | None) -> Iterator[Callable[[bytes], int]]:
    if path is None:
        yield sys.stdout.buffer.write
        return
    with path.open("wb") as file:
        yield file.write
