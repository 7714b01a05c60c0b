"""headrace-trainer label"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from msgspec.structs import asdict
from rich.progress import Progress

from proxy.protocol.command_line import whole_number
from trainer import labelling, rows
from trainer.commands.rows import read_rows
from trainer.commands.shared import Commands, console, tell
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    label = commands.add_parser(
        "label", help="ask a teacher several times for the rows whose label is in doubt"
    )
    label.add_argument("rows", type=Path, help="rows that `import` wrote")
    label.add_argument("--out", type=Path, required=True, help="file to write all rows to")
    label.add_argument("--base-url", required=True, help="any OpenAI-compatible endpoint")
    label.add_argument("--model", required=True, help="the teacher, as the endpoint names it")
    label.add_argument(
        "--samples", type=whole_number(1, 64), default=5, help="answers to each row (%(default)s)"
    )
    label.add_argument(
        "--temperature", type=float, default=0.7, help="of the samples (%(default)s)"
    )
    label.add_argument(
        "--budget-tokens",
        type=whole_number(1, 10**12),
        help="prompts and answers together; then it stops (no limit)",
    )
    label.add_argument(
        "--concurrency", type=whole_number(1, 256), default=4, help="requests at once (%(default)s)"
    )
    label.add_argument("--all", action="store_true", help="not only the rows in doubt")
    label.add_argument(
        "--cache", type=Path, help="file of all samples; a second run goes on where it stopped"
    )
    label.add_argument(
        "--key-env", default="OPENAI_API_KEY", help="variable with the API key (%(default)s)"
    )
    label.set_defaults(run=_label)


def _label(options: argparse.Namespace) -> int:
    committee = labelling.Committee(
        base_url=options.base_url,
        model=options.model,
        samples=options.samples,
        temperature=options.temperature,
        budget_tokens=options.budget_tokens,
        concurrency=options.concurrency,
        everything=options.all,
    )
    cache = labelling.Cache(options.cache or options.out.with_suffix(".samples.jsonl"))
    labeller = labelling.Labeller(committee, cache, os.environ.get(options.key_env) or "none")
    skips = Skips()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("asking", total=None)
        labelled = labeller.label(read_rows(options.rows, skips), lambda: progress.advance(bar))
        rows.write(options.out, labelled)
    for name, count in asdict(labeller.told).items():
        console.print(f"{count:10} {name}")
    return tell(skips)
