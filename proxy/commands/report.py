"""headrace report: who answers better, and what was saved. Needs the extra `report`."""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy import config
from proxy.backends.settings import CloudSettings
from proxy.commands.shared import Commands, add_with_config
from proxy.config import Config
from proxy.errors import BadConfig, CannotStart, MissingExtra
from proxy.protocol.prices import PRICES, PriceTable
from proxy.protocol.sealing import SealError

if TYPE_CHECKING:
    from proxy.record.shelf import Shelf
    from proxy.report.ab import Report, Scope
    from proxy.report.costs import Bill
    from proxy.report.pairs import Contest

_SPAN = re.compile(r"(\d+)([hdw])")
_SECONDS = {"h": 60 * 60, "d": 24 * 60 * 60, "w": 7 * 24 * 60 * 60}
_SWITCH = "the first answer at home"
_SCREEN = Path("-")
_AB = """Compares two backends on requests that both answered (docs/reports.md). Exit status: 0 the
candidate is better, 10 not worse, 20 worse, 30 undecided; 1 and 2 are errors."""


def add(commands: Commands) -> None:
    """Add `report` and its commands to a command line."""
    text = "who answers better, and what was saved"
    report = commands.add_parser("report", help=text, description=text)
    reports = report.add_subparsers(required=True, metavar="report")
    text = "two backends compared, with what it rests on"
    _add_ab(add_with_config(reports, "ab", _ab, text))
    text = "what was saved since home answers, and whether"
    _add_scope(add_with_config(reports, "costs", _costs, text), since=None)


def _add_ab(parser: argparse.ArgumentParser) -> None:
    parser.description = _AB
    add = parser.add_argument
    _add_scope(parser, since="7d")
    add("--candidate", metavar="NAME", help="backend or adapter (the local one with most pairs)")
    add("--baseline", metavar="NAME", help="backend or adapter that it is held against")
    add("--margin", type=float, default=0.03, help="what counts as not worse (%(default)s)")
    add("--strings", choices=("exact", "bfcl"), default="exact", help="how arguments are compared")
    add("--html", type=Path, metavar="FILE", help="write a page for people")
    add("--no-examples", action="store_true", help="leave out what was asked and said")


def _add_scope(parser: argparse.ArgumentParser, since: str | None) -> None:
    add = parser.add_argument
    add("--domain", help="only this domain")
    add("--tenant", help="only this tenant")
    add(
        "--since",
        type=moment,
        default=since,
        help=f"12h, 7d, 4w ago, or a day ({since or _SWITCH})",
    )
    add("--until", type=moment, default="0h", help="the same (now)")
    add(
        "--json",
        nargs="?",
        const=_SCREEN,
        type=Path,
        metavar="FILE",
        help="the same for machines, into a file or, without one, on the screen instead",
    )


def moment(text: str) -> float:
    """Seconds since the epoch of `7d` (ago) or of a day, `2026-01-30` (its beginning, UTC)."""
    if found := _SPAN.fullmatch(text):
        return time.time() - int(found[1]) * _SECONDS[found[2]]
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither like 7d nor like 2026-01-30"
        ) from error


# ---------------------------------------------------------------- ab


def _ab(options: argparse.Namespace) -> int:
    with _extra():
        from proxy.report import html, text, verdict
    if not 0 < options.margin < 1:
        raise BadConfig(f"--margin {options.margin}: a share between 0 and 1, such as 0.03")
    report = _compared(options, config.load(options.config))
    _tell(options.json, report, text.lines(report))
    if options.html:
        _write(options.html, html.html(report).encode())
    return verdict.EXIT[report.verdict.word]


def _compared(options: argparse.Namespace, settings: Config) -> Report:
    from proxy.record import query
    from proxy.report import ab, reading, trials
    from proxy.report.pairs import LeftOut, pairs

    scope = msgspec.structs.replace(_scope(options), margin=options.margin)
    left_out = Counter[LeftOut]()
    with _told(), query.opened(_shelf(settings), scope.since) as connection:
        contest = _contest(options, reading.busiest(connection, scope, _local(settings)))
        records = reading.paired(connection, _shelf(settings).rows, scope)
        found = pairs(records, contest, _prices(settings), left_out)
        live = trials.trials(reading.assigned(connection, scope))
        report = ab.report(found, contest, scope, left_out, live)
    return msgspec.structs.replace(report, examples=[]) if options.no_examples else report


def _scope(options: argparse.Namespace) -> Scope:
    from proxy.report.ab import Scope

    return Scope(
        since=options.since or 0.0,
        until=options.until,
        domain=options.domain,
        tenant=options.tenant,
    )


def _contest(options: argparse.Namespace, busiest: Contest | None) -> Contest:
    from proxy.report.pairs import Contest

    if bool(options.candidate) != bool(options.baseline):
        raise BadConfig("name both --candidate and --baseline, or neither")
    if options.candidate:
        return Contest(
            baseline=options.baseline, candidate=options.candidate, strings=options.strings
        )
    if busiest is None:
        return Contest(candidate="candidate", baseline="baseline", strings=options.strings)
    return msgspec.structs.replace(busiest, strings=options.strings)


def _local(settings: Config) -> list[str]:
    backends = settings.backends.items()
    return [name for name, of in backends if not isinstance(of, CloudSettings)]


# ---------------------------------------------------------------- costs


def _costs(options: argparse.Namespace) -> int:
    with _extra():
        from proxy.report import costs
    found = _billed(options, config.load(options.config))
    _tell(options.json, found, costs.lines(found))
    return 0


def _billed(options: argparse.Namespace, settings: Config) -> Bill:
    from proxy.record import query
    from proxy.report import reading

    scope, local, prices = _scope(options), _local(settings), _prices(settings)
    with _told(), query.opened(_shelf(settings), scope.since) as connection:
        found = reading.billed(connection, scope, local, prices, settings.costs)
    if found is None:
        raise CannotStart("no request was answered at home yet: there is nothing to reckon")
    return found


# ---------------------------------------------------------------- what all need


def _prices(settings: Config) -> PriceTable:
    return {**PRICES, **(settings.record.prices if settings.record else {})}


def _shelf(settings: Config) -> Shelf:
    from proxy.record.archive import open_archive
    from proxy.record.keys import keyring
    from proxy.record.shelf import Shelf

    if settings.record is None:
        raise BadConfig("there is nothing to report on, as routes.yaml has no `record` section")
    return Shelf(settings.record.directory, open_archive(settings.record), keyring(settings.record))


def _tell(json: Path | None, found: Report | Bill, lines: Iterable[str | tuple[str, ...]]) -> None:
    """For people on the screen, for machines into the file, if one is named; `-` is the screen."""
    from proxy.report import text

    if json != _SCREEN:
        print("\n".join(text.aligned(lines)))
    if json is not None:
        content = msgspec.json.format(msgspec.json.encode(found))
        print(content.decode()) if json == _SCREEN else _write(json, content)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CannotStart(f"{path}: {error.strerror}") from error


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"headrace report: this needs the package {error.name!r}, which is not installed;"
            " run: pip install 'headrace[report]'"
        ) from error


@contextmanager
def _told() -> Iterator[None]:
    """What went wrong, on one line."""
    try:
        yield
    except (SealError, OSError) as error:
        raise CannotStart(str(error)) from error
