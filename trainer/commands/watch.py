"""headrace-trainer watch"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial

import msgspec

from trainer.commands.chronicle import show_triggers
from trainer.commands.run import add_settings, follow, guarded
from trainer.commands.shared import Commands, console
from trainer.flywheel import run, triggers
from trainer.flywheel.events import Events, told
from trainer.flywheel.settings import Domain, domains


def add(commands: Commands) -> None:
    """Add the command."""
    watch = commands.add_parser(
        "watch", help="look at every domain's triggers, and run those that are due"
    )
    add_settings(watch)
    watch.add_argument("--once", action="store_true", help="look once, for a CronJob")
    watch.add_argument("--every", type=float, default=60.0, metavar="MINUTES", help="default: 60")
    watch.set_defaults(run=_watch)


def _watch(options: argparse.Namespace) -> int:
    while True:
        again = math.inf if options.once else time.time() + options.every * 60
        with told(options.json, console) as events:
            # Read anew each time: who changes the settings needs no restart.
            chosen = domains(options.settings)
            codes = [guarded(one, events, partial(_look, one, options, events)) for one in chosen]
            codes += follow(chosen, events, again)
        if options.once:
            return max(codes)
        time.sleep(max(0.0, again - time.time()))


def _look(domain: Domain, options: argparse.Namespace, events: Events) -> None:
    found = triggers.readings(domain)
    if options.json:
        for reading in found:
            events.tell("trigger_read", domain=domain.name, **msgspec.structs.asdict(reading))
    else:
        console.print(domain.name, style="bold")
        show_triggers(found)
    cause = triggers.due(found)
    if cause or run.unfinished(domain) is not None:
        run.run(domain, events, cause=cause, anyway=triggers.is_owed(found))
