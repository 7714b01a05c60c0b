"""headrace-trainer run"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from proxy.protocol.visible import shown
from trainer.commands.shared import Commands, console
from trainer.errors import Stopped, TrainerError
from trainer.flywheel import run as flywheel
from trainer.flywheel.events import Events, told
from trainer.flywheel.settings import Domain, domains
from trainer.flywheel.state import STEPS

SETTINGS = Path("flywheel.yaml")


def add(commands: Commands) -> None:
    """Add the command."""
    run = commands.add_parser(
        "run",
        help="from the traffic since the last run to a promoted, or refused, adapter",
        epilog="A run that was interrupted is taken up where it was. docs/flywheel.md",
    )
    add_settings(run)
    chosen = run.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--domain", help="one of the settings' domains")
    chosen.add_argument("--all", action="store_true", help="one domain after the other")
    run.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    run.add_argument("--anyway", action="store_true", help="even without enough new rows")
    run.add_argument("--anew", action="store_true", help="give up a run that is not over")
    run.add_argument(
        "--force-step", choices=STEPS, help="of the last run, this step and those after it again"
    )
    run.add_argument(
        "--no-follow",
        action="store_true",
        help="leave a promotion alone while it waits; the next `run` or `watch` takes it on",
    )
    run.set_defaults(run=_run)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options that all commands of the flywheel have."""
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="default: flywheel.yaml")
    parser.add_argument("--json", action="store_true", help="JSON for machines, one object a line")


def _run(options: argparse.Namespace) -> int:
    with told(options.json, console) as events:
        chosen = domains(options.settings, options.domain)
        codes = [
            guarded(domain, events, partial(_one, domain, options, events)) for domain in chosen
        ]
        if not (options.no_follow or options.dry_run):
            codes += follow(chosen, events)
    return max(codes, default=0)


def follow(chosen: Sequence[Domain], events: Events, until: float = math.inf) -> list[int]:
    """Stay with all promotions at once until they are decided, or until then (seconds since the
    epoch); exit statuses."""
    codes, waiting = [0], [domain for domain in chosen if flywheel.is_promoting(domain)]
    while waiting and time.time() < until:
        time.sleep(flywheel.PAUSE_S)
        codes += [guarded(one, events, partial(flywheel.run, one, events)) for one in waiting]
        waiting = [domain for domain in waiting if flywheel.is_promoting(domain)]
    return codes


def guarded(domain: Domain, events: Events, work: Callable[[], object]) -> int:
    """Do it; one domain's trouble is not the others'. The exit status that it comes to."""
    try:
        work()
    except Stopped:
        raise
    except TrainerError as error:
        events.tell("failed", domain=domain.name, reason=str(error))
        print(f"headrace-trainer: {domain.name}: {shown(error)}", file=sys.stderr)
        return error.status
    return 0


def _one(domain: Domain, options: argparse.Namespace, events: Events) -> None:
    if options.dry_run:
        flywheel.dry_run(domain, events, anyway=options.anyway)
        return
    flywheel.run(
        domain,
        events,
        anyway=options.anyway,
        anew=options.anew,
        forced=options.force_step,
    )
