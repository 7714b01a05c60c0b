"""headrace fetch: a model or adapters, out of a bucket."""

from __future__ import annotations

import argparse
from pathlib import Path

from proxy.commands.shared import Commands, on_one_line
from proxy.fetch import fetch


def add(commands: Commands) -> None:
    """Add `fetch` to a command line."""
    text = "copy a model or adapters out of a bucket into a directory"
    parser = commands.add_parser("fetch", help=text, description=text)
    parser.set_defaults(command=_fetch)
    parser.add_argument("url", help="s3://, gs://, az:// or file://, with the path")
    parser.add_argument("directory", type=Path, help="made when missing")
    parser.add_argument("--json", action="store_true", help="one JSON string a line")


def _fetch(options: argparse.Namespace) -> int:
    for line in fetch(options.url, options.directory):
        print(on_one_line(line) if options.json else line, flush=True)
    return 0
