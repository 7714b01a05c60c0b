"""What a client gets for each fault of the first backend, streamed or not, with a spare or without.

Every cell is a request over real sockets. docs/faults.md is this table, written out; it is checked
here, and written anew by `python -m tests.test_faults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from proxy.backends.base import Backend, Finish, Text
from proxy.backends.confidence import Confidence
from proxy.backends.openai import OpenAIBackend
from proxy.errors import BackendOverloaded, BackendUnavailable
from proxy.protocol.openai import Usage
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scraping import Samples, scraped
from tests.scripted import Cut, Pause, Step, chunk, completion, scripted_cloud, stream
from tests.serving import Engine, call, finish, serving_with, settings
from tests.wire import Response, ask

PAGE = Path("docs/faults.md")
SHOWN = PAGE.read_text().splitlines()
SILENT = Pause(60)
LOCAL = "local engine"
CLOUD = "cloud"


@dataclass(frozen=True)
class Fault:
    """What the first backend does, by kind of backend."""

    backend: str
    name: str
    whole: Sequence[object]
    """What it plays when the answer is asked for in one piece."""
    streamed: Sequence[object]


def _cloud(name: str, whole: Sequence[Step], streamed: Sequence[Step] | None = None) -> Fault:
    return Fault(CLOUD, name, whole, whole if streamed is None else streamed)


def _local(name: str, *steps: object) -> Fault:
    return Fault(LOCAL, name, steps, steps)


def _error(status: int, *headers: str) -> list[Step]:
    return [scripted.error(status, "scripted", None, *headers)]


def _calls(name: str, arguments: str, index: int = 0) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": index, "id": "c1", "type": "function", "function": function}],
    }


SPARE = _calls("ping", '{"host":"spare"}')


def _answered(message: dict[str, object], *before: object) -> tuple[list[Step], list[Step]]:
    whole = scripted.answer(completion(message, "tool_calls"))
    return [whole], stream(*before, chunk(message), chunk({}, "tool_calls"))


HEAD = scripted.head(200, "content-type: application/json", "content-length: 500")
HALF = chunk({"role": "assistant", "content": "Hal"})
UNSURE = Finish(
    reason="tool_calls", usage=Usage.of(1, 1), confidence=Confidence(name=0.9, arguments=0.1)
)

FAULTS = [
    _cloud("refuses the connection", []),
    _cloud("answers 500", _error(500)),
    _cloud("answers 429 with retry-after", _error(429, "retry-after: 7")),
    _cloud("rejects our key (401)", _error(401)),
    _cloud("says nothing", [SILENT]),
    _cloud("stops in the middle", [HEAD, b'{"id":', SILENT], stream(HALF, SILENT)),
    _cloud("breaks off in the middle", [HEAD, b'{"id":', Cut()], stream(HALF, Cut(), done=False)),
    _cloud("ends without an end", [HEAD, b'{"id":', Cut()], stream(HALF, done=False)),
    _cloud("never ends", [HEAD, b"{", *[b" ", Pause(0.1)] * 60], stream(*[HALF, Pause(0.1)] * 60)),
    _cloud("sends a page instead", [scripted.answer(b"<html>", content_type="text/html")]),
    _cloud(
        "sends an empty-choices chunk first",
        *_answered(_calls("ping", '{"host":"a"}'), scripted.usage_chunk(1, 1)),
    ),
    _cloud("calls with broken arguments", *_answered(_calls("ping", '{"host":'))),
    _cloud("calls with a gap in the indices", *_answered(_calls("ping", '{"host":"a"}', 3))),
    _local("is down", BackendUnavailable("down")),
    _local("is busy", BackendOverloaded("busy")),
    _local("says nothing", SILENT),
    _local("stops in the middle", Text("Hal"), SILENT),
    _local("dies in the middle", Text("Hal"), BackendUnavailable("died")),
    _local("ends without an end", Text("Hal")),
    _local("calls with broken arguments", call("ping", '{"host":'), finish()),
    _local("calls an unknown tool", call("pong", "{}"), finish()),
    _local("calls with a number in quotes", call("count", '{"n":"3"}'), finish()),
    _local("says something, then calls wrongly", Text("Well."), call("pong", "{}"), finish()),
    _local("is not sure", call("ping", '{"host":"a"}'), UNSURE),
]


# ---------------------------------------------------------------- one cell


@dataclass(frozen=True)
class Cell:
    """What was seen."""

    client: str
    """What the client got."""
    record: str
    """The attempts, each with its outcome or reason."""
    metrics: str
    """The counters that moved, each with the labels that tell the fault."""


async def seen(fault: Fault, streams: bool, has_spare: bool) -> Cell:
    """Ask once, and look at what the client gets and what is recorded."""
    sink = MemorySink()
    async with _first(fault, streams) as first, scripted_cloud() as cloud:
        cloud.plays(*_answered(SPARE)[streams])
        spare = [OpenAIBackend("spare", base_url=cloud.base_url)] if has_spare else []
        names = ["first", *(["spare"] if has_spare else [])]
        policy = settings(*names, extra=LIMITS, policy="floor: 0.5, repair: {ask_again: false}")
        async with serving_with(policy, first, *spare, sink=sink) as url:
            response = await ask(url, stream=streams, tools=TOOLS)
            samples = await scraped(url, requests=1)
    (exchange,) = sink.exchanges
    attempts = [
        f"{a.backend}: {', '.join(a.repairs) or a.reason or a.outcome}" for a in exchange.attempts
    ]
    return Cell(_told(response, streams), "; ".join(attempts), _moved(samples))


LIMITS = "limits: {deadline_s: 1, longest_s: 2}"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": kind}},
                "required": [argument],
            },
        },
    }
    for name, argument, kind in (("ping", "host", "string"), ("count", "n", "integer"))
]


@asynccontextmanager
async def _first(fault: Fault, streams: bool) -> AsyncIterator[Backend]:
    steps = fault.streamed if streams else fault.whole
    if fault.backend == LOCAL:
        yield Engine("first", steps)
        return
    async with scripted_cloud() as cloud:
        cloud.plays(*steps)
        url = cloud.base_url if steps else "http://127.0.0.1:1/v1"
        yield OpenAIBackend("first", base_url=url, silence_s=0.8)


def _told(response: Response, streams: bool) -> str:
    if response.status != 200:
        return f"{response.status} {response.json['error']['code']}{_retry(response)}"
    if not streams:
        return _said(response.json["choices"][0]["message"])
    *events, last = response.content.decode().strip().split("\n\n")
    texts = [msgspec.json.decode(event.removeprefix("data: ")) for event in events]
    deltas = [choice["delta"] for event in texts for choice in event["choices"]]
    merged = {
        "content": "".join(delta.get("content") or "" for delta in deltas)[:14],
        "tool_calls": [c for delta in deltas for c in delta.get("tool_calls") or ()],
    }
    if last == "data: [DONE]":
        return _said(merged)
    return f"{_said(merged)}, then error {msgspec.json.decode(last[6:])['error']['code']}"


def _said(message: dict[str, object]) -> str:
    calls = message.get("tool_calls")
    if not calls:
        return f"“{message['content']}”"
    arguments = "".join(c["function"].get("arguments", "") for c in calls)
    text = f"“{message['content']}” and " if message.get("content") else ""
    return f"{text}`{calls[0]['function']['name']}({arguments})`"


def _retry(response: Response) -> str:
    after = response.headers.get("retry-after")
    return f", retry-after {after}" if after else ""


TELLING = {
    "attempts": ("backend", "outcome", "reason"),
    "fallbacks": ("backend", "reason"),
    "repairs": ("backend", "code"),
    "requests": ("status", "error"),
    "validation_failures": ("backend", "reason"),
}
"""Counters, without `headrace_` and `_total`, and those of their labels that the table shows."""


def _moved(samples: Samples) -> str:
    """The counters that are not 0, but for those that only say that something went well."""
    moved = []
    for (name, labels), value in samples.items():
        family = name.removeprefix("headrace_").removesuffix("_total")
        if family in TELLING and value:
            assert value == 1
            told = [dict(labels)[label] for label in TELLING[family]]
            moved.append(f"`{family}` {' '.join(filter(None, told))}")
    return "; ".join(sorted(moved))


# ---------------------------------------------------------------- the table


def rows() -> Iterator[tuple[Fault, bool, bool]]:
    for fault in FAULTS:
        for streams in (False, True):
            for has_spare in (False, True):
                yield fault, streams, has_spare


def line(fault: Fault, streams: bool, has_spare: bool, cell: Cell) -> str:
    how = "stream" if streams else "whole"
    spare = "yes" if has_spare else "no"
    cells = (f"{fault.backend} {fault.name}", how, spare, cell.client, cell.record, cell.metrics)
    return f"| {' | '.join(cells)} |"


def _id(value: object) -> str:
    if isinstance(value, Fault):
        return f"{value.backend} {value.name}".replace(" ", "-")
    return str(value)


@pytest.mark.parametrize(("fault", "streams", "has_spare"), list(rows()), ids=_id)
async def test_each_fault_has_the_result_that_the_docs_show(fault, streams, has_spare):
    cell = await seen(fault, streams, has_spare)

    assert line(fault, streams, has_spare, cell) in SHOWN


async def _lines() -> list[str]:
    return [line(*row, await seen(*row)) for row in rows()]


def _write() -> None:
    begin = PAGE.read_text().split("| first backend |")[0]
    lines = asyncio.run(_lines())
    titles = ("first backend", "answer", "spare", "the client gets", "the record says", "counted")
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    PAGE.write_text(begin + "\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    _write()
