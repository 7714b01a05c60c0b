"""headrace completion: what makes a shell complete this command line. Needs the extra."""

from __future__ import annotations

import argparse

from proxy.beside import missing
from proxy.commands.shared import Commands


def add(commands: Commands, whole: argparse.ArgumentParser) -> None:
    """Add `completion` to a whole command line."""
    text = "print what makes a shell complete this command line"
    parser = commands.add_parser("completion", help=text, description=text)
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    parser.set_defaults(command=lambda options: _completion(whole, options.shell))


def _completion(parser: argparse.ArgumentParser, shell: str) -> int:
    try:
        import shtab
    except ImportError as error:
        raise missing("completion", "completion", error) from error
    print(shtab.complete(parser, shell=shell))
    return 0
