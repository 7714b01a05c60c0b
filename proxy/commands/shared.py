"""What the commands have in common: the settings file, tables, JSON for people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from proxy.protocol import visible

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds itself."""
Command = Callable[[argparse.Namespace], int]
"""Its exit code."""


def add_with_config(
    commands: Commands, name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    """Add a command that reads routes.yaml, or what --config names."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    parser.add_argument(
        "--config", type=Path, default=Path("routes.yaml"), help="settings file (%(default)s)"
    )
    return parser


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines whose columns are equally wide, and which a terminal takes for no command."""
    rows = [list(map(visible.on_one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def formatted(value: object) -> str:
    """JSON for people."""
    return visible.escaped(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def on_one_line(value: object) -> str:
    """JSON for programs, on one line."""
    return visible.escaped(msgspec.json.encode(value).decode())
