"""What the record's typical queries cost, each in a process of its own, as they are typed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.gateways.gateways import ROOT
from bench.growth.axes import RECORD, Point
from bench.growth.traffic import WORDS
from proxy.dashboard.questions import Order, Search, Span, packed
from proxy.protocol.exchange import VERSION, Answer, Attempt, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import FunctionCall, ToolCall, Usage
from proxy.protocol.parquet import Rows
from proxy.protocol.segments import Encoder, Record, Segment
from proxy.protocol.shadowed import Shadowed
from proxy.record.partitions import Partitions
from proxy.record.settings import RecordSettings

DAYS = 30
DOMAINS = 10
TURNS = 4
"""Exchanges of a conversation."""
_SHADOWED, _SHOWN = 10, 20
"""One exchange of so many has a shadow, and one a demonstration."""
_FRESH = 100
"""One of so many, the last ones, lies in a segment."""
_BATCH = 256
_ROUTES = f"""
version: 1
models: [m]
backends:
  cloud: {{kind: openai, base_url: 'http://127.0.0.1:1/v1'}}
  engine: {{kind: openai, base_url: 'http://127.0.0.1:1/v1'}}
domains: {{{", ".join(f"d{n}: {{plan: [engine, cloud]}}" for n in range(DOMAINS))}}}
defaults: {{tools: d0, chat: d0}}
record: {{directory: record}}
"""


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    """On the processor, in user and kernel mode."""
    mib: float
    """Resident, at most."""


def measure(count: int, place: Path | None) -> Point:
    """All queries on a record of so many exchanges, which is made in a place and removed again.

    None is the system's place for temporary files.
    """
    with tempfile.TemporaryDirectory(dir=place, prefix="headrace-growth-") as scratch:
        directory = Path(scratch)
        write(directory, count, time.time())
        return queried(directory, count)


def queried(directory: Path, count: int) -> Point:
    """All queries on the record of a directory."""
    point = Point(RECORD.name, count)
    for name, command, told in _queries(directory, count):
        cost = _run(command, told, directory)
        point.values[f"{name}_s"], point.values[f"{name}_mib"] = cost
    return point


def _queries(directory: Path, count: int) -> Iterator[tuple[str, list[str], bytes]]:
    """Name, arguments to Python, and standard input of each."""
    record = ["-m", "proxy", "record"]
    yield "stats", [*record, "stats"], b""
    yield "ls", [*record, "ls"], b""
    yield "show", [*record, "show", _id(count // 2)], b""
    yield "search", ["-m", "proxy.dashboard.reader"], _last_day(directory)
    sides = ["--candidate", "engine", "--baseline", "cloud", "--no-examples"]
    yield "ab", ["-m", "proxy", "report", "ab", "--domain", "d0", "--since", "4w", *sides], b""


def _last_day(directory: Path) -> bytes:
    until = time.time()
    return packed(
        Order(
            question=Search(span=Span(since=until - 24 * 60 * 60, until=until)),
            record=RecordSettings(directory=directory / "record"),
            costs=None,
            local=["engine"],
        )
    )


def _run(arguments: Sequence[str], told: bytes, directory: Path) -> Cost:
    """Raises CalledProcessError when it fails; verdicts of a report are no failures."""
    with tempfile.TemporaryFile() as given, (directory / "complaints").open("wb") as complaints:
        given.write(told)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        _, status, resources = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 10, 20, 30):
        said = (directory / "complaints").read_text()[-500:]
        raise RuntimeError(f"{' '.join(arguments)} failed: {said}")
    return Cost(resources.ru_utime + resources.ru_stime, resources.ru_maxrss / 1024)


# ---------------------------------------------------------------- a record


def write(directory: Path, count: int, now: float) -> None:
    """A record of so many exchanges up to `now` (seconds since the epoch), as a proxy that is
    compacted leaves it."""
    (directory / "routes.yaml").write_text(_ROUTES)
    fresh = count // _FRESH
    archive = directory / "record/archive"
    with Partitions(archive, "growth", Rows()) as partitions:
        partitions.add(_records(0, count - fresh, count, now))
    segment, encoder = Segment(directory / "record"), Encoder()
    waiting = list(_records(count - fresh, count, count, now))
    for at in range(0, len(waiting), _BATCH):
        segment.append(encoder.encode(waiting[at : at + _BATCH]))
    segment.close()


def _records(start: int, end: int, count: int, now: float) -> Iterator[Record]:
    asked = _first(now)
    for number in range(start, end):
        at = now - DAYS * 24 * 60 * 60 * (count - number) / count
        whole = _exchange(asked, number, at)
        yield whole
        if number // DOMAINS % _SHADOWED == 0:
            yield _shadow(whole)
        if number // DOMAINS % _SHOWN == 0:
            yield _demonstration(whole)


def _exchange(first: Exchange, number: int, at: float) -> Exchange:
    """The first one, as another one of its kind."""
    words = " ".join(random.Random(number).choices(WORDS, k=30)).encode()
    question = b"question %d: %s" % (number, words)
    return msgspec.structs.replace(
        first,
        id=_id(number),
        request_id=f"req_{number:09}",
        started_at=at,
        conversation=f"conversation-{number // DOMAINS // TURNS}-{number % DOMAINS}",
        domain=f"d{number % DOMAINS}",
        request=msgspec.Raw(bytes(first.request).replace(b"question 0", question)),
    )


def _first(now: float) -> Exchange:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": "find", "description": "Finds a city.", "parameters": parameters}
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. " * 8},
            {"role": "user", "content": "question 0: where is the nearest station?"},
        ],
        "tools": [{"type": "function", "function": function}],
    }
    return Exchange(
        id=_id(0),
        request_id="req_0",
        version=VERSION,
        started_at=now,
        total_s=0.25,
        tenant="acme",
        caller="app",
        conversation="",
        domain="d0",
        route="exact",
        model="m",
        stream=False,
        request=msgspec.Raw(msgspec.json.encode(body)),
        attempts=[_attempt("cloud", now)],
        outcome="completed",
        status=200,
    )


def _attempt(backend: str, at: float) -> Attempt:
    call = ToolCall("call_1", FunctionCall("find", '{"city":"Oslo"}'))
    return Attempt(
        kind="primary",
        backend=backend,
        outcome="completed",
        answer=Answer(tool_calls=[call], finish_reason="tool_calls"),
        usage=Usage.of(300, 20),
        usage_source="reported",
        cost_usd=0.001,
        started_at=at,
        first_byte_s=0.1,
        total_s=0.2,
    )


def _shadow(of: Exchange) -> Shadowed:
    return Shadowed(
        id=f"shadow-{of.id}",
        exchange=of.id,
        tenant=of.tenant,
        caller=of.caller,
        conversation=of.conversation,
        domain=of.domain,
        attempt=msgspec.structs.replace(_attempt("engine", of.started_at), kind="shadow"),
    )


def _demonstration(of: Exchange) -> Feedback:
    return Feedback(
        id=f"feedback-{of.id}",
        given_at=of.started_at + 60,
        tenant=of.tenant,
        caller=of.caller,
        exchange=of.id,
        kind="demonstration",
        value=of.attempts[0].answer,
    )


def _id(number: int) -> str:
    return f"chatcmpl-{number:09}"
