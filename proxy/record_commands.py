"""headrace record: what was recorded, listed, searched, exported, compacted, judged, erased.

`ls`, `show` and `tail` of segments need nothing more; all else is the extra `record`.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from proxy import config
from proxy.app import redactor
from proxy.errors import BadConfig, CannotStart
from proxy.keeping import Keeping
from proxy.protocol import segments
from proxy.protocol.exchange import Answer, Exchange
from proxy.protocol.feedback import Feedback, Kind
from proxy.protocol.sealing import SealError
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed
from proxy.record import tail
from proxy.record.keys import keyring, missing
from proxy.record.settings import RecordSettings
from proxy.sinks.segments import SegmentSink

if TYPE_CHECKING:
    from proxy.record.compact import Retention
    from proxy.record.query import Result
    from proxy.record.shelf import Shelf

_ALIGNED = 200
"""Rows of a table whose columns are made equally wide; the rest follows in the same widths."""
_LINES = "one JSON object a line, without what was asked and said"
_ONE = "print what was done as JSON"
_CONTENT = ("request", "attempts", "attempt", "value", "tool_results")
"""Fields with what was asked and said: `show`, `query` and `export` tell them."""

log = structlog.get_logger(__name__)

SubParsers = argparse._SubParsersAction


class Add(Protocol):
    """Adds a command that takes --config."""

    def __call__(
        self,
        commands: SubParsers[argparse.ArgumentParser],
        name: str,
        command: Callable[[argparse.Namespace], int],
        text: str,
        /,
    ) -> argparse.ArgumentParser: ...


def add_to(commands: SubParsers[argparse.ArgumentParser], add: Add) -> None:
    """Add `record` and its commands to a command line."""
    record = commands.add_parser("record", help="read, compact, judge, erase what was recorded")
    reading = record.add_subparsers(required=True, metavar="command")
    ls = add(reading, "ls", _ls, "one line per exchange, oldest first")
    ls.add_argument("--json", action="store_true", help=_LINES)
    show = add(reading, "show", _show, "one exchange as JSON")
    show.add_argument("id", help="id of the exchange, chatcmpl-…, or of its request")
    tail = add(reading, "tail", _tail, "the last exchanges in the segments")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what is written")
    tail.add_argument("-n", "--lines", type=int, default=10, help="how many (%(default)s)")
    tail.add_argument("--json", action="store_true", help=_LINES)
    query = add(
        reading, "query", _query, "SQL over exchanges, attempts, calls, feedback and shadows"
    )
    query.add_argument("sql", help="one SELECT")
    query.add_argument("--json", action="store_true", help="one JSON object a row")
    stats = add(reading, "stats", _stats, "figures by domain")
    stats.add_argument("--json", action="store_true", help="one JSON object a domain")
    _add_export(add(reading, "export", _export, "exchanges for others to read"))
    compact = add(reading, "compact", _compact, "segments to Parquet; what is too old is deleted")
    compact.add_argument("--every", type=float, metavar="SECONDS", help="again and again")
    compact.add_argument("--json", action="store_true", help=_ONE)
    _add_erase(add(reading, "erase", _erase, "remove exchanges, and leave tombstones"))
    _add_feedback(add(reading, "feedback", _feedback, "judge an exchange or a conversation"))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("openai-jsonl", "parquet"), required=True)
    parser.add_argument("--out", type=Path, help="file; needed for parquet (standard output)")
    parser.add_argument("--where", default="true", help="condition in SQL: \"domain = 'api'\"")


def _add_erase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--caller", help="name of the key")
    parser.add_argument("--tenant", help="tenant of the key")
    parser.add_argument("--conversation", help="id of the conversation")
    parser.add_argument("--matching", help="regular expression, found anywhere in the exchange")
    parser.add_argument("--json", action="store_true", help=_ONE)


def _add_feedback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exchange", help="id of the exchange, or of its request")
    parser.add_argument("--conversation", help="id of the conversation")
    parser.add_argument("--kind", choices=Kind.__args__, required=True)  # type: ignore[attr-defined]
    parser.add_argument("--value", required=True, help="true, 0.5, a text, the right answer")
    parser.add_argument("--name", default="", help="what is judged, where there are several things")
    parser.add_argument("--tenant", default="default", help="whose exchange it is (%(default)s)")
    parser.add_argument("--json", action="store_true", help=_ONE)


# ---------------------------------------------------------------- reading


def _ls(options: argparse.Namespace) -> int:
    with _told():
        for exchange in _exchanges(_settings(options.config)):
            print(_told_of(exchange, options.json))
    return 0


def _show(options: argparse.Namespace) -> int:
    with _told():
        found = _found(_settings(options.config), options.id)
    if found is None:
        told = f"no exchange {options.id!r}; `headrace record ls` lists them"
        print(f"headrace: {told}", file=sys.stderr)
        return 1
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    return 0


def _exchanges(settings: RecordSettings) -> Iterator[Exchange]:
    if _is_archived(settings):
        return _shelf(settings).exchanges()
    return segments.read(settings.directory, keyring=keyring(settings))


def _found(settings: RecordSettings, id: str) -> Exchange | None:
    if _is_archived(settings):
        return _shelf(settings).find(id)
    return next((one for one in _exchanges(settings) if id in (one.id, one.request_id)), None)


def _is_archived(settings: RecordSettings) -> bool:
    """Whether something may lie where only the extra can read it."""
    folders = ("archive", "tombstones")
    return settings.archive is not None or any((settings.directory / f).exists() for f in folders)


def _tail(options: argparse.Namespace) -> int:
    settings = _settings(options.config)
    with _told():
        ring = keyring(settings)
        following = tail.follow(settings.directory, ring) if options.follow else iter(())
        for record in chain(tail.last(settings.directory, options.lines, ring), following):
            print(_told_of(record, options.json), flush=True)
    return 0


def _told_of(record: Record, as_json: bool) -> str:
    if as_json:
        return _json(_metadata(record))
    match record:
        case Feedback():
            return _judgement(record)
        case Shadowed():
            return _shadow(record)
        case _:
            return _line(record)


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


# ---------------------------------------------------------------- searching


def _query(options: argparse.Namespace) -> int:
    return _search(options, options.sql, as_json=options.json)


def _stats(options: argparse.Namespace) -> int:
    with _extra():
        from proxy.record.query import STATS
    return _search(options, STATS, as_json=options.json)


def _search(options: argparse.Namespace, sql: str, *, as_json: bool) -> int:
    with _told():
        shelf = _shelf(_settings(options.config))
        from proxy.record import query

        with query.opened(shelf) as connection:
            found = query.run(connection, sql)
            for line in _objects(found) if as_json else _cells(found):
                print(line)
    return 0


def _objects(found: Result) -> Iterator[str]:
    for batch in found.batches():
        for row in batch:
            values = dict(zip(found.columns, row, strict=True))
            yield msgspec.json.encode(values, enc_hook=str).decode()


def _cells(found: Result) -> Iterator[str]:
    rows = (list(map(_cell, row)) for batch in found.batches() for row in batch)
    aligned = [found.columns, *islice(rows, _ALIGNED)]
    yield from table(aligned)
    yield from ("  ".join(row) for row in rows)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines whose columns are equally wide."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _export(options: argparse.Namespace) -> int:
    if options.format == "parquet" and options.out is None:
        raise BadConfig("a Parquet file is not for the screen; name one with --out")
    with _told():
        shelf = _shelf(_settings(options.config))
        from proxy.record import export

        if options.format == "parquet":
            print(f"{export.parquet(shelf, options.where, options.out)} exchanges")
            return 0
        with _output(options.out) as write:
            for line in export.openai_lines(shelf, options.where):
                write(line + b"\n")
    return 0


@contextmanager
def _output(path: Path | None) -> Iterator[Callable[[bytes], int]]:
    if path is None:
        yield sys.stdout.buffer.write
        return
    with path.open("wb") as file:
        yield file.write


# ---------------------------------------------------------------- keeping in order


def _compact(options: argparse.Namespace) -> int:
    settings = _settings(options.config)
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

    with _told():
        report = compact(_shelf(settings), retention)
    told = (
        f"{report.records} records of {report.segments} segments → {report.files} files;"
        f" {report.expired} too old; {report.waiting} segments still being written"
    )
    print(_json(report) if as_json else told, flush=True)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _retention(settings: RecordSettings) -> Retention:
    with _extra():
        from proxy.record.compact import Retention
    tenants = {name: t.keep_days for name, t in settings.tenants.items() if t.keep_days is not None}
    return Retention(settings.keep_days, tenants)


def _erase(options: argparse.Namespace) -> int:
    with _extra():
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
    with _told():
        report = erase(_shelf(_settings(options.config)), choice)
    told = (
        f"{report.exchanges} exchanges, {report.feedback} statements"
        f" and {report.shadows} shadows erased"
    )
    print(_json(report) if options.json else told)
    if report.unfinished:
        told = f"{report.unfinished} segments are still being written: hidden there; run it again"
        print(f"headrace: {told}", file=sys.stderr)
    return 1 if report.unfinished else 0


def _feedback(options: argparse.Namespace) -> int:
    whole = config.load(options.config)
    settings = _settings(options.config)
    try:
        feedback = Feedback(
            id=f"feedback-{secrets.token_hex(12)}",
            given_at=time.time(),
            tenant=options.tenant,
            caller="command-line",
            exchange=options.exchange,
            conversation=options.conversation,
            name=options.name,
            kind=options.kind,
            value=_value(options.kind, options.value),
        )
    except ValueError as error:
        raise BadConfig(str(error)) from error
    sink = SegmentSink(settings.directory, keyring=keyring(settings))
    with _told(), contextlib.closing(sink):
        sink.write([Keeping(redactor=redactor(settings, whole))(feedback)])
    print(_json({"id": feedback.id}) if options.json else feedback.id)
    return 0


def _value(kind: Kind, text: str) -> bool | float | str | Answer:
    match kind:
        case "boolean":
            return msgspec.json.decode(text, type=bool)
        case "float":
            return float(text)
        case "comment":
            return text
        case "demonstration":
            return Answer(text=text)


# ---------------------------------------------------------------- what all need


def _settings(path: Path) -> RecordSettings:
    settings = config.load(path).record
    if settings is None:
        raise BadConfig(f"{path}: nothing is recorded, as there is no `record` section")
    return settings


def _shelf(settings: RecordSettings) -> Shelf:
    with _extra():
        from proxy.record.archive import open_archive
        from proxy.record.shelf import Shelf
    return Shelf(settings.directory, open_archive(settings), keyring(settings))


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise missing("headrace record", error) from error


@contextmanager
def _told() -> Iterator[None]:
    """What went wrong, on one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (SealError, OSError) as error:
        raise CannotStart(str(error)) from error
