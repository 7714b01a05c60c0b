"""What the record's typical queries cost, each in a process of its own, as they are typed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from bench.gateways.gateways import ROOT
from bench.growth.axes import RECORD, Point
from bench.growth.written import DOMAINS, write
from proxy.dashboard.questions import Look, Order, Question, Search, Span, Traffic, packed
from proxy.record.settings import RecordSettings

_TRAINER = """
import sys, time
from trainer.recipe.sources import ExchangesSettings
from trainer.sources.base import Skips
from trainer.sources.exchanges import ExchangesSource
settings = ExchangesSettings(directory=sys.argv[1], domains=("d0",))
print(sum(1 for _ in ExchangesSource(settings, Skips()).heard(time.time() - 24 * 60 * 60)))
"""
"""What the flywheel's triggers ask: a day of one domain."""
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
        write(directory / "record", count, time.time())
        return queried(directory, count)


def queried(directory: Path, count: int) -> Point:
    """All queries on the record of a directory."""
    (directory / "routes.yaml").write_text(_ROUTES)
    point = Point(RECORD.name, count)
    for name, command, told in _queries(directory):
        cost = _run(command, told, directory)
        point.values[f"{name}_s"], point.values[f"{name}_mib"] = cost
    return point


def _queries(directory: Path) -> Iterator[tuple[str, list[str], bytes]]:
    """Name, arguments to Python, and standard input of each."""
    record, reader = ["-m", "proxy", "record"], ["-m", "proxy.dashboard.reader"]
    day = Span(since=time.time() - 24 * 60 * 60, until=time.time())
    id = _old(directory)
    yield "stats", [*record, "stats"], b""
    yield "ls", [*record, "ls", "--since", "1d"], b""
    yield "ls_all", [*record, "ls"], b""
    yield "show", [*record, "show", id], b""
    yield "traffic", reader, _order(directory, Traffic(span=day))
    yield "search", reader, _order(directory, Search(span=day))
    yield "look", reader, _order(directory, Look(id=id, tenant="acme"))
    yield "trainer", ["-c", _TRAINER, "record"], b""
    sides = ["--candidate", "engine", "--baseline", "cloud", "--no-examples"]
    yield "ab", ["-m", "proxy", "report", "ab", "--domain", "d0", "--since", "4w", *sides], b""


def _old(directory: Path) -> str:
    """The id of an exchange half-way through the archive."""
    files = sorted((directory / "record/archive/exchanges").rglob("*.parquet"))
    ids = pq.ParquetFile(files[len(files) // 2]).read(columns=["id"]).column("id")
    return str(ids[len(ids) // 2])


def _order(directory: Path, question: Question) -> bytes:
    record = RecordSettings(directory=directory / "record")
    return packed(Order(question=question, record=record, costs=None, local=["engine"]))


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
