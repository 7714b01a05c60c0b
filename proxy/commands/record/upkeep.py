"""headrace record compact, erase: segments to Parquet, and what must not stay."""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING

from proxy.commands.record.opened import ONE_OBJECT, errors_told, extra, settings_of, shelf_of
from proxy.commands.shared import Commands, add_with_config, on_one_line
from proxy.errors import BadConfig, CannotStart
from proxy.protocol.command_line import positive
from proxy.record.settings import RecordSettings

if TYPE_CHECKING:
    from proxy.record.compact import Retention


def add(reading: Commands) -> None:
    """Add the commands."""
    text = "segments to Parquet; what is too old is deleted"
    compact = add_with_config(reading, "compact", _compact, text)
    compact.add_argument(
        "--every", type=positive(86_400), metavar="SECONDS", help="again and again"
    )
    compact.add_argument("--json", action="store_true", help=ONE_OBJECT)
    text = "remove exchanges, and leave tombstones"
    _add_erase(add_with_config(reading, "erase", _erase, text))


def _add_erase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--caller", help="name of the key")
    parser.add_argument("--tenant", help="tenant of the key")
    parser.add_argument("--conversation", help="id of the conversation")
    text = "regular expression, found anywhere in the exchange"
    parser.add_argument("--matching", type=_pattern, help=text)
    parser.add_argument("--json", action="store_true", help=ONE_OBJECT)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


# ---------------------------------------------------------------- compact


def _compact(options: argparse.Namespace) -> int:
    settings = settings_of(options.config)
    retention = _retention(settings)
    while options.every:
        try:
            _compact_once(settings, retention, options.json)
        except CannotStart as error:
            # The bucket may be back by the next time; until then the segments keep everything.
            print(f"headrace: {error}", file=sys.stderr)
        time.sleep(options.every)
    _compact_once(settings, retention, options.json)
    return 0


def _compact_once(settings: RecordSettings, retention: Retention, as_json: bool) -> None:
    from proxy.record.compact import compact

    with errors_told():
        report = compact(shelf_of(settings), retention)
    told = (
        f"{report.records} records of {report.segments} segments → {report.files} files;"
        f" {report.expired} too old; {report.waiting} segments still being written;"
        f" joined {report.joined} files into {report.into}"
    )
    print(on_one_line(report) if as_json else told, flush=True)


def _retention(settings: RecordSettings) -> Retention:
    with extra():
        from proxy.record.compact import Retention
    tenants = {name: t.keep_days for name, t in settings.tenants.items() if t.keep_days is not None}
    return Retention(settings.keep_days, tenants)


# ---------------------------------------------------------------- erase


def _erase(options: argparse.Namespace) -> int:
    with extra():
        from proxy.record.erase import Choice, erase
    try:
        choice = Choice(
            caller=options.caller,
            tenant=options.tenant,
            conversation=options.conversation,
            matching=options.matching,
        )
    except ValueError as error:
        raise BadConfig(f"{error}: --caller, --tenant, --conversation or --matching") from error
    with errors_told():
        report = erase(shelf_of(settings_of(options.config)), choice)
    told = (
        f"{report.exchanges} exchanges, {report.feedback} statements"
        f" and {report.shadows} shadows erased"
    )
    print(on_one_line(report) if options.json else told)
    if report.unfinished:
        told = f"{report.unfinished} segments are still being written: hidden there; run it again"
        print(f"headrace: {told}", file=sys.stderr)
    return 1 if report.unfinished else 0
