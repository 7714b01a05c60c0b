"""headrace-trainer workflows"""

from __future__ import annotations

import argparse
import asyncio
import os
from functools import partial
from pathlib import Path

import msgspec
from rich.progress import Progress
from rich.table import Table

from proxy.protocol.command_line import whole_number
from trainer.closed_loop import Figures, Report, figures, run_all
from trainer.commands.shared import Commands, console
from trainer.errors import TrainerError
from trainer.served import Served
from trainer.simulators import TASKS, Task
from trainer.subject import Subject


def add(commands: Commands) -> None:
    """Add the command."""
    workflows = commands.add_parser(
        "workflows", help="have models run tasks to their end in simulated services"
    )
    workflows.add_argument(
        "--base-url", default="http://127.0.0.1:8080/v1", help="the proxy (%(default)s)"
    )
    workflows.add_argument(
        "--subject", action="append", help="who is asked, as in `evaluate`; again for more (base)"
    )
    workflows.add_argument("--key-env", default="", help="variable with the endpoint's key (none)")
    workflows.add_argument(
        "--task", action="append", choices=[task.id for task in TASKS], help="only these"
    )
    workflows.add_argument(
        "--times",
        type=whole_number(1, 1000),
        default=3,
        help="runs of a task (%(default)s); one more has a failure injected",
    )
    workflows.add_argument("--out", type=Path, help="directory for the runs in JSON")
    workflows.set_defaults(run=_workflows)


def _workflows(options: argparse.Namespace) -> None:
    tasks = [task for task in TASKS if options.task is None or task.id in options.task]
    subjects = [Subject.parse(text) for text in options.subject or ["base"]]
    measured = {str(subject): _run(subject, tasks, options) for subject in subjects}
    console.print(_table(measured))


def _run(subject: Subject, tasks: list[Task], options: argparse.Namespace) -> Figures:
    asker = Served(options.base_url, subject, os.environ.get(options.key_env, "none"))
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(str(subject), total=len(tasks) * (options.times + 1))
        advance = partial(progress.advance, bar)
        ended = asyncio.run(run_all(tasks, asker, times=options.times, progress=advance))
    if all(one.end == "no_answer" for one in ended):
        raise TrainerError(f"{asker.place} answered nothing; is it running?")
    found = figures(ended, tasks)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{subject}-workflows.json".replace(", ", "-").replace(" ", "-")
        whole = Report(subject=subject, figures=found, runs=ended)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    return found


def _table(measured: dict[str, Figures]) -> Table:
    table = Table("", *measured)
    shown = measured.values()
    table.add_row("right", *(str(one.right) for one in shown))
    table.add_row("pass^1", *(f"{one.pass_1:.0%}" for one in shown))
    table.add_row("pass^3", *("–" if one.pass_3 is None else f"{one.pass_3:.0%}" for one in shown))
    table.add_row("recovery", *(str(one.recovery) for one in shown))
    table.add_row("precision of calls", *(f"{one.precision:.2f}" for one in shown))
    table.add_row("recall of calls", *(f"{one.recall:.2f}" for one in shown))
    table.add_row("steps of the right ones", *(_times(one.step_ratio) for one in shown))
    return table


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1f} ×"
