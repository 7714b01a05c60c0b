"""headrace record ls, show, tail: exchanges, one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain

from proxy.commands.record.opened import errors_told, settings_of, shelf_of
from proxy.commands.report import moment
from proxy.commands.shared import Commands, add_with_config, formatted, on_one_line
from proxy.protocol import segments, visible
from proxy.protocol.command_line import whole_number
from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed
from proxy.record import tail
from proxy.record.keys import keyring
from proxy.record.settings import RecordSettings

_LINES = "one JSON object a line, without what was asked and said"
_COUNT = whole_number(0, 1_000_000)
_CONTENT = ("request", "attempts", "attempt", "value", "tool_results")
"""Fields with what was asked and said: `show`, `query` and `export` tell them."""


def add(reading: Commands) -> None:
    """Add the commands."""
    ls = add_with_config(reading, "ls", _ls, "one line per exchange, oldest first")
    text = "only those that began since: 12h, 7d, 4w ago, or a day (all)"
    ls.add_argument("--since", type=moment, default=0.0, help=text)
    ls.add_argument("--json", action="store_true", help=_LINES)
    show = add_with_config(reading, "show", _show, "one exchange as JSON")
    show.add_argument("id", help="id of the exchange, chatcmpl-…, or of its request")
    last = add_with_config(reading, "tail", _tail, "the last exchanges in the segments")
    last.add_argument("-f", "--follow", action="store_true", help="go on with what is written")
    last.add_argument("-n", "--lines", type=_COUNT, default=10, help="how many (%(default)s)")
    last.add_argument("--json", action="store_true", help=_LINES)


def _ls(options: argparse.Namespace) -> int:
    with errors_told():
        for exchange in _exchanges(settings_of(options.config), options.since):
            print(_told_of(exchange, options.json))
    return 0


def _show(options: argparse.Namespace) -> int:
    with errors_told():
        found = _found(settings_of(options.config), options.id)
    if found is None:
        told = f"no exchange {options.id!r}; `headrace record ls` lists them"
        print(f"headrace: {told}", file=sys.stderr)
        return 1
    print(formatted(found))
    return 0


def _exchanges(settings: RecordSettings, since: float = 0.0) -> Iterator[Exchange]:
    if _is_archived(settings):
        return shelf_of(settings).exchanges(since)
    found = segments.read(settings.directory, keyring=keyring(settings))
    return (one for one in found if one.started_at >= since)


def _found(settings: RecordSettings, id: str) -> Exchange | None:
    if _is_archived(settings):
        return shelf_of(settings).find(id)
    return next((one for one in _exchanges(settings) if id in (one.id, one.request_id)), None)


def _is_archived(settings: RecordSettings) -> bool:
    """Whether something may lie where only the extra can read it."""
    folders = ("archive", "tombstones")
    return settings.archive is not None or any((settings.directory / f).exists() for f in folders)


def _tail(options: argparse.Namespace) -> int:
    settings = settings_of(options.config)
    with errors_told():
        ring = keyring(settings)
        following = tail.follow(settings.directory, ring) if options.follow else iter(())
        for record in chain(tail.last(settings.directory, options.lines, ring), following):
            print(_told_of(record, options.json), flush=True)
    return 0


def _told_of(record: Record, as_json: bool) -> str:
    if as_json:
        return on_one_line(_metadata(record))
    match record:
        case Feedback():
            line = _judgement(record)
        case Shadowed():
            line = _shadow(record)
        case _:
            line = _line(record)
    return visible.on_one_line(line)


def _metadata(record: Record) -> dict[str, object]:
    names = (name for name in record.__struct_fields__ if name not in _CONTENT)
    told = {name: getattr(record, name) for name in names}
    match record:
        case Exchange():
            return told | {"backends": [attempt.backend for attempt in record.attempts]}
        case Shadowed():
            return told | {"backends": [record.attempt.backend]}
        case _:
            return told


def _line(exchange: Exchange) -> str:
    backends = "→".join(attempt.backend for attempt in exchange.attempts) or "-"
    return (
        f"{_clock(exchange.started_at)}  {exchange.id}  {exchange.status}  {exchange.outcome:15}"
        f" {exchange.total_s:8.3f} s  {exchange.domain}  {backends}"
    )


def _judgement(feedback: Feedback) -> str:
    about = feedback.exchange or feedback.conversation
    return f"{_clock(feedback.given_at)}  {feedback.id}  {feedback.kind}  on {about}"


def _shadow(one: Shadowed) -> str:
    tried = one.attempt
    return (
        f"{_clock(one.started_at)}  {one.id}  {tried.outcome:15}"
        f" {tried.total_s:8.3f} s  {one.domain}  {tried.backend}  of {one.exchange}"
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
