"""headrace-trainer status, history, diff"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import msgspec
from rich.table import Table
from rich.text import Text

from trainer.commands.run import add_settings
from trainer.commands.shared import Commands, console
from trainer.flywheel import chronicle
from trainer.flywheel.chronicle import Past, Status
from trainer.flywheel.settings import domains
from trainer.flywheel.triggers import Reading


def add(commands: Commands) -> None:
    """Add the commands."""
    status = commands.add_parser("status", help="each domain: champion, last run, triggers")
    history = commands.add_parser("history", help="the runs, with their verdicts")
    for parser in (status, history):
        add_settings(parser)
        parser.add_argument("--domain", help="this one alone")
    status.set_defaults(run=_status)
    history.set_defaults(run=_history)
    diff = commands.add_parser("diff", help="two runs: recipe, dataset, figures, verdict")
    add_settings(diff)
    for which in ("first", "second"):
        diff.add_argument(which, help="id of a run, or of the adapter that it made")
    diff.set_defaults(run=_diff)


# ------------------------------------------------------------------ status


def _status(options: argparse.Namespace) -> None:
    for domain in domains(options.settings, options.domain):
        found = chronicle.status(domain)
        if options.json:
            _print_json(found)
        else:
            _show_status(found)


def _show_status(found: Status) -> None:
    _say(Text(found.domain, "bold"), "", f"champion {found.champion or 'none'}")
    if found.candidate is not None:
        one = found.candidate
        _say(f"  candidate {one.adapter}: {one.stage}, {one.share:.0%} of the requests")
    if found.cooldown_until is not None:
        _say(f"  no candidate before {found.cooldown_until}")
    if found.run is not None:
        _say(f"  last run {found.run.run}: {_state(found.run)}. {found.run.reason}")
    if found.working is not None:
        _say(f"  worked on by {found.working}")
    show_triggers(found.triggers)


def show_triggers(found: Sequence[Reading]) -> None:
    """Each with whether it is due, and its number beside its threshold."""
    for reading in found:
        _say(f"  {'●' if reading.due else '○'} {reading.name:9}  {reading.sentence}")


def _state(past: Past) -> str:
    return past.outcome if past.state == "finished" else f"{past.state} at {past.step}"


# ------------------------------------------------------------------ history, diff


def _history(options: argparse.Namespace) -> None:
    for domain in domains(options.settings, options.domain):
        found = chronicle.history(domain)
        if options.json:
            for past in found:
                _print_json(past)
            continue
        table = Table("run", "begun", "took", "came to", "because", title=domain.name)
        for past in found:
            table.add_row(past.run, _time(past), _took(past), _state(past), past.reason)
        console.print(table)


def _time(past: Past) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(past.started_at))


def _took(past: Past) -> str:
    if past.finished_at is None:
        return ""
    return f"{(past.finished_at - past.started_at) / 60:.0f} min"


def _diff(options: argparse.Namespace) -> None:
    known = domains(options.settings)
    first, second = (chronicle.find(known, name) for name in (options.first, options.second))
    found = chronicle.diff(first, second)
    if options.json:
        _print_json(found)
        return
    _say(f"{found.first} → {found.second}")
    for name in ("recipe", "dataset", "figures", "verdict"):
        lines = getattr(found, name)
        _say(Text(name, "bold"), "" if lines else "alike")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True, highlight=False)


def _say(*parts: str | Text) -> None:
    console.print(*parts, soft_wrap=True, highlight=False)


def _print_json(found: msgspec.Struct) -> None:
    print(msgspec.json.encode(found).decode())
