"""The record at size: ingest, compact, search, erase; and what recording costs a request.

    .venv/bin/python bench/record.py [--count 1000000] [--keep DIRECTORY]

Each step runs in a process of its own, so that its peak memory is its own. Exchanges are synthetic:
a system prompt, three tools and a question, different every time; one of a thousand callers each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from proxy.auth import ANONYMOUS, Authenticator
from proxy.backends.base import Ask, Call, Finish, Generated
from proxy.cache import Cache
from proxy.cascade import Answer
from proxy.catalog import Catalog
from proxy.consent import Consent
from proxy.domains import Defaults, Domain
from proxy.gateway import Gateway, Inbound
from proxy.hedge import Hedges
from proxy.keeping import Keeping
from proxy.limits import Limits
from proxy.logs import Facts
from proxy.metrics import Metrics
from proxy.protocol.openai import ChatRequest, FunctionCall, ToolCall, Usage, parse_request
from proxy.protocol.redact import Redactor
from proxy.protocol.segments import Record, segments
from proxy.recorder import Recorder
from proxy.recording import Recording
from proxy.routing import Routes
from proxy.sinks.segments import SegmentSink

DAYS = 10
DOMAINS = ["api", "bookings", "chat"]
CALLERS = 1000
KEY = b"k" * 32
_WORDS = "find book cancel the a first last cheap flight table room in for on with city day"
NAMES = _WORDS.split()


# ---------------------------------------------------------------- exchanges


def body(random: random.Random, number: int) -> bytes:
    """A request as clients send them, some 1.5 KB."""
    words = " ".join(random.choices(NAMES, k=30))
    tools = [_tool(name) for name in random.sample(NAMES, 3)]
    messages = [
        {"role": "system", "content": "You are a helpful assistant. " * 4},
        {"role": "user", "content": f"{words}, please; mail user{number}@example.com. {number}"},
    ]
    return msgspec.json.encode({"model": "gpt-4o", "messages": messages, "tools": tools})


def _tool(name: str) -> dict[str, object]:
    fields = {word: {"type": "string", "description": f"The {word} of it"} for word in NAMES[:4]}
    parameters = {"type": "object", "properties": fields}
    about = {"name": f"do_{name}", "description": f"Does {name}.", "parameters": parameters}
    return {"type": "function", "function": about}


def exchanges(count: int) -> Iterator[Record]:
    """What is kept of so many recordings, redaction included."""
    chance = random.Random(1)
    keeping = Keeping(redactor=Redactor(KEY))
    for number in range(count):
        content = body(chance, number)
        recording = Recording(
            id=f"chatcmpl-{number:09}",
            request_id=f"req-{number:09}",
            tenant="acme",
            caller=f"caller-{chance.randrange(CALLERS)}",
            domain=chance.choice(DOMAINS),
            route="exact",
            request=parse_request(content),
            body=content,
        )
        with recording.attempt("primary", "local", "api-v1", "hermes") as tape:
            tape.hear(_call(number))
            tape.hear(Finish(reason="tool_calls", usage=Usage.of(400, 20)))
        recording.close(200)
        recording._clock.started_at -= chance.random() * DAYS * 24 * 60 * 60
        yield keeping(recording)


def _call(number: int) -> Call:
    arguments = f'{{"city":"Springfield","number":{number}}}'
    return Call(ToolCall(f"call_{number}", FunctionCall("do_find", arguments)))


# ---------------------------------------------------------------- steps


def ingest(directory: Path, count: int) -> dict[str, object]:
    """Write segments as a proxy does, a batch at a time."""
    sink = SegmentSink(directory)
    batch: list[Record] = []
    for exchange in exchanges(count):
        batch.append(exchange)
        if len(batch) == 256:
            sink.write(batch)
            batch.clear()
    sink.write(batch)
    sink.close()
    size = sum(path.stat().st_size for path in segments(directory))
    return {"bytes an exchange": round(size / count)}


def compaction(directory: Path, count: int) -> dict[str, object]:
    from proxy.record.compact import Retention, compact

    report = compact(_shelf(directory), Retention())
    size = sum(path.stat().st_size for path in directory.rglob("*.parquet"))
    return {"files": report.files, "bytes an exchange": round(size / count)}


def search(directory: Path, count: int) -> dict[str, object]:
    from proxy.record import query

    sql = (
        "SELECT domain, date, count(*), avg(total_s), sum(prompt_tokens) FROM exchanges"
        " GROUP BY ALL ORDER BY ALL"
    )
    with query.opened(_shelf(directory)) as connection:
        rows = [row for batch in query.run(connection, sql).batches() for row in batch]
    assert sum(row[2] for row in rows) == count
    return {"rows": len(rows)}


def erasure(directory: Path, count: int) -> dict[str, object]:
    from proxy.record.erase import Choice, erase

    report = erase(_shelf(directory), Choice(caller="caller-7"))
    return {"erased": report.exchanges}


def _shelf(directory: Path):
    from proxy.record.archive import DirectoryArchive
    from proxy.record.shelf import Shelf

    return Shelf(directory, DirectoryArchive(directory / "archive"))


STEPS: dict[str, Callable[[Path, int], dict[str, object]]] = {
    "ingest": ingest,
    "compact": compaction,
    "query": search,
    "erase": erasure,
}


def run(step: str, directory: Path, count: int) -> dict[str, object]:
    """Seconds, peak memory in MB, and what the step says, from a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--keep", directory, "--count", str(count)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measured(step: str, directory: Path, count: int) -> dict[str, object]:
    began = time.perf_counter()
    told = STEPS[step](directory, count)
    seconds = round(time.perf_counter() - began, 2)
    return {"seconds": seconds, "peak MB": _peak_mb(), **told}


def _peak_mb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


# ---------------------------------------------------------------- the cost of a request


class Instant:
    """A backend that answers at once."""

    name = "instant"
    is_local = True

    def lacks(self, request: ChatRequest) -> str | None:
        return None

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        yield Generated(self._events())

    async def _events(self) -> AsyncIterator[Call | Finish]:
        yield _call(7)
        yield Finish(reason="tool_calls", usage=Usage.of(400, 20))

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


def gateway(recorder: Recorder | None) -> Gateway:
    domains = {"all": Domain(plan=["instant"], verify="off")}
    return Gateway(
        auth=Authenticator([]),
        routes=Routes(domains, Defaults("all", "all"), ["gpt-4o"]),
        limits=Limits(100),
        catalog=Catalog({"instant": Instant()}, {}),
        recorder=recorder,
        metrics=Metrics({}),
        consent=Consent("full", domains, {}),
        deadline_s=60,
        longest_s=600,
        hedges=Hedges(),
        cache=Cache(domains),
    )


async def cost(directory: Path, count: int = 4000, rate: float = 200) -> dict[str, list[float]]:
    """Microseconds of the event loop for a request, with and without a record, by turns."""
    recorder = Recorder(
        SegmentSink(directory), keeping=Keeping(redactor=Redactor(KEY)), max_waiting=100_000
    )
    writing = asyncio.create_task(recorder.run())
    gateways = {"off": gateway(None), "on": gateway(recorder)}
    times: dict[str, list[float]] = {name: [] for name in gateways}
    chance = random.Random(2)
    for number in range(count):
        name = ("off", "on")[number % 2]
        inbound = Inbound(ANONYMOUS, {}, body(chance, number), Facts(str(number)))
        began = time.perf_counter()
        await gateways[name].answer(inbound, _taken)
        times[name].append((time.perf_counter() - began) * 1e6)
        await asyncio.sleep(1 / rate)
    writing.cancel()
    await asyncio.wait([writing])
    assert recorder.written == count // 2
    return times


async def _taken(answer: Answer) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="directory to work in, and to leave")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measured(options.step, options.keep, options.count)))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=options.keep) as scratch:
        times = asyncio.run(cost(Path(scratch) / "cost"))
        for name, each in times.items():
            cuts = statistics.quantiles(each, n=100)
            print(f"record {name:3}: p50 {cuts[49]:.0f} µs, p95 {cuts[94]:.0f}, p99 {cuts[98]:.0f}")
        difference = statistics.median(times["on"]) - statistics.median(times["off"])
        print(f"recording costs {difference:.0f} µs of the event loop a request at p50")
        print(f"{options.count:,} exchanges")
        for step in STEPS:
            told = run(step, Path(scratch) / "record", options.count)
            print(f"{step:8}" + "".join(f"  {name} {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
