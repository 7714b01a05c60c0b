"""headrace-trainer promote"""

from __future__ import annotations

import argparse

from trainer.commands.shared import Commands, console
from trainer.registry.registry import Registry


def add(commands: Commands) -> None:
    """Add the command."""
    promote = commands.add_parser("promote", help="let a bundle serve its domain")
    promote.add_argument("id")
    promote.add_argument("--adapters", default="adapters", help="a directory, or a bucket's URL")
    promote.add_argument("--reason", default="by hand", help="what the history says")
    promote.set_defaults(run=_promote)


def _promote(options: argparse.Namespace) -> None:
    registry = Registry(options.adapters)
    domain = registry.manifest(options.id).domain
    alias = registry.appoint(options.id, options.reason).domains[domain]
    console.print(f"{domain}: {alias.previous or 'none'} → {alias.champion}")
