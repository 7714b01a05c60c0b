"""headrace-trainer promote"""

from __future__ import annotations

import argparse
from pathlib import Path

from proxy.protocol import adapter, champions
from trainer.commands.shared import Commands, console
from trainer.errors import TrainerError


def add(commands: Commands) -> None:
    """Add the command."""
    promote = commands.add_parser("promote", help="let a bundle serve its domain")
    promote.add_argument("id")
    promote.add_argument("--adapters", type=Path, default=Path("adapters"))
    promote.set_defaults(run=_promote)


def _promote(options: argparse.Namespace) -> None:
    bundle = adapter.read(options.adapters / options.id)
    if bundle.id != options.id:
        raise TrainerError(f"{bundle.path} holds {bundle.id}; name the directory so")
    domain = bundle.manifest.domain
    appointed = champions.appoint(options.adapters, domain, bundle.id, "by hand")
    console.print(f"{domain}: {appointed.domains[domain].previous or 'none'} → {bundle.id}")
