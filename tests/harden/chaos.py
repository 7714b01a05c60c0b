"""A network that fails: between client and proxy, proxy and cloud, proxy and engine.

    python -m tests.harden.chaos [--requests 40] [--place engine] [--seed 1]

prints a table. Behind the engine there is a cloud that is well. Whatever fails: nothing is worked
on past its deadline, no whole answer is another's or half of one, all that reached the proxy whole
is in the record, and soon after the fault's end all is well again.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec
from starlette.types import Receive, Scope, Send

from proxy import logs, sse
from proxy.backends.base import Backend
from proxy.backends.openai import OpenAIBackend
from proxy.backends.settings import VllmSettings
from proxy.endpoints import send_bytes, send_head
from proxy.sinks.memory import MemorySink
from tests.engines.alone import alone
from tests.engines.fronting import MODEL, vocabulary
from tests.harden.network import Fault, Relay, relay
from tests.scraping import scraped, total
from tests.scripted import chunk, completion
from tests.serving import listening, serving_with, settings

DEADLINE_S = 1.5
"""Until an answer begins."""
SILENCE_S = 1.0
LONGEST_S = 5.0
PATIENCE_S = 4 * LONGEST_S
"""How long a client waits that should be answered: what this machine may take included."""
WORDS = 40


def _longer(piece: bytes) -> bytes:
    return re.sub(rb"(?i)content-length: (\d+)", rb"content-length: 9\1", piece)


def _shorter(piece: bytes) -> bytes:
    return re.sub(rb"(?i)content-length: \d+(?=\d\r)", b"content-length: 1", piece)


def _bad_chunks(piece: bytes) -> bytes:
    return re.sub(rb"\r\n([0-9a-f]+)\r\n", rb"\r\nzz\1\r\n", piece)


def _huge_chunks(piece: bytes) -> bytes:
    return re.sub(rb"\r\n([0-9a-f]+)\r\n", rb"\r\nffffffffff\1\r\n", piece)


FAULTS = (
    Fault("none"),
    Fault("latency", delay_s=0.2),
    Fault("jitter", jitter_s=0.2),
    Fault("loss, as stalls", after=300, then="stall"),
    Fault("refused connections", refuses=True),
    Fault("reset at once", after=0, then="reset"),
    Fault("reset in the answer", after=300, then="reset"),
    Fault("reset late in the answer", after=3000, then="reset"),
    Fault("reset in the request", after=80, then="reset", of="request"),
    Fault("half open before the answer", after=0, then="hang"),
    Fault("half open in the answer", after=300, then="hang"),
    Fault("half open late in the answer", after=3000, then="hang"),
    Fault("half open in the request", after=80, then="hang", of="request"),
    Fault("slow reads", piece=200, delay_s=0.02),
    Fault("slow writes", piece=40, delay_s=0.02, of="request"),
    Fault("truncated answer", after=300, then="close"),
    Fault("truncated head", after=20, then="close"),
    Fault("truncated request", after=80, then="close", of="request"),
    Fault("content-length too large", change=_longer),
    Fault("content-length too small", change=_shorter),
    Fault("chunk sizes that are none", change=_bad_chunks),
    Fault("chunk sizes beyond the body", change=_huge_chunks),
)
PLACES = ("cloud", "engine", "client")


class Seen(NamedTuple):
    """What became of the requests during one fault."""

    place: str
    fault: str
    ends: Counter[str]
    """`whole`, `told` (an error in OpenAI's form), `cut`, `unheard` (no end came within the time),
    and `wrong`, which must not be."""
    unrecorded: int
    """Requests that should be in the record, and are not."""
    at_work: float
    """Requests that the proxy still works on when the deadline is over."""
    recovery_s: float

    @property
    def holds(self) -> bool:
        bad = self.ends["wrong"] + self.unrecorded + self.at_work
        # Where the client's own network is dead, nothing that the proxy says can reach it.
        hung = self.ends["unheard"] if self.place != "client" else 0
        return not bad and not hung and self.recovery_s <= 10

    @property
    def line(self) -> str:
        ends = [str(self.ends[end]) for end in ("whole", "told", "cut", "unheard", "wrong")]
        rest = (str(self.unrecorded), f"{self.at_work:.0f}", f"{self.recovery_s:.2f} s")
        return f"| {' | '.join((self.place, self.fault, *ends, *rest))} |"


COLUMNS = ("the proxy and its", "fault", "whole", "error told", "cut", "unheard", "wrong",
           "unrecorded", "still at work", "well again after")  # fmt: skip
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


# ---------------------------------------------------------------- who is asked


def text_of(number: str) -> str:
    """The one right answer to a request."""
    return " ".join(f"answer-{number}-{word}" for word in range(WORDS))


async def cloud(scope: Scope, receive: Receive, send: Send) -> None:
    """A cloud whose answer names the request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = msgspec.json.decode(body)
    words = text_of(asked["messages"][-1]["content"]).split(" ")
    if not asked.get("stream"):
        said = completion({"role": "assistant", "content": " ".join(words)})
        await send_bytes(send, msgspec.json.encode(said), {"content-type": "application/json"})
        return
    await send_head(send, {"content-type": "text/event-stream"})
    for place, word in enumerate(words):
        delta = chunk({"content": word if place == 0 else f" {word}"})
        await send({"type": "http.response.body", "body": _event(delta), "more_body": True})
    end = _event(chunk({}, "stop")) + sse.encode(sse.DONE)
    await send({"type": "http.response.body", "body": end})


def _event(value: object) -> bytes:
    return sse.encode(msgspec.json.encode(value))


# ---------------------------------------------------------------- who asks


async def asked(
    session: aiohttp.ClientSession,
    url: str,
    number: str,
    streams: bool,
    patience_s: float = PATIENCE_S,
) -> str:
    """How a request ended."""
    body = {"model": "gpt-4o", "stream": streams, "messages": [{"role": "user", "content": number}]}
    try:
        async with (
            asyncio.timeout(patience_s),
            session.post(
                f"{url}/chat/completions", json=body, headers={"x-request-id": number}
            ) as answer,
        ):
            content = await answer.read()
            return _end(answer.status, content, number, streams)
    except TimeoutError:
        return "unheard"
    except (aiohttp.ClientError, ConnectionError):
        return "cut"


def _end(status: int, content: bytes, number: str, streams: bool) -> str:
    if status != 200:
        return "told"
    try:
        text, is_whole = _streamed(content) if streams else _plain(content)
    except (msgspec.MsgspecError, KeyError, IndexError):
        return "cut"
    if not is_whole:
        return "told" if b'"error"' in content else "cut"
    return "whole" if text == text_of(number) else "wrong"


def _plain(content: bytes) -> tuple[str, bool]:
    return msgspec.json.decode(content)["choices"][0]["message"]["content"], True


def _streamed(content: bytes) -> tuple[str, bool]:
    events = sse.EventDecoder().feed(content)
    said: list[Any] = [msgspec.json.decode(event) for event in events if event != sse.DONE]
    deltas = [one["choices"][0]["delta"].get("content", "") for one in said if "choices" in one]
    return "".join(deltas), sse.DONE in events


# ---------------------------------------------------------------- one fault


@asynccontextmanager
async def standing(
    place: str, sink: MemorySink, seed: int
) -> AsyncIterator[tuple[str, str, Relay]]:
    """The URL that clients use, the proxy's own, and the network that is to fail."""
    limits = f"limits: {{deadline_s: {DEADLINE_S}, longest_s: {LONGEST_S}}}"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(listening(cloud))
        net = await stack.enter_async_context(relay(_port(upstream), seed))
        there = f"http://127.0.0.1:{net.port}"
        base = f"{there}/v1" if place == "cloud" else upstream
        plan: list[Backend] = [
            OpenAIBackend(
                "cloud", base_url=base, connect_s=1, silence_s=SILENCE_S, answer_s=SILENCE_S
            )
        ]
        if place == "engine":
            plan.insert(0, engine(there))
        named = settings(*(backend.name for backend in plan), extra=limits)
        url = await stack.enter_async_context(serving_with(named, *plan, sink=sink))
        if place == "client":
            outer = await stack.enter_async_context(relay(_port(url), seed))
            yield f"http://127.0.0.1:{outer.port}/v1", url, outer
        else:
            yield url, url, net


def engine(url: str) -> Backend:
    """One vLLM server, which speaks as the cloud does."""
    given = VllmSettings(
        replicas=[url],
        base_model=MODEL,
        plain="hermes",
        mode="chat",
        connect_s=1,
        first_token_s=SILENCE_S,
        stall_s=SILENCE_S,
        total_s=LONGEST_S,
    )
    return alone(given, vocabulary())


def _port(url: str) -> int:
    return int(url.removesuffix("/v1").rpartition(":")[2])


async def seen(place: str, fault: Fault, requests: int, seed: int) -> Seen:
    """So many requests while the network fails, eight at a time; then until all is well again."""
    sink = MemorySink()
    ends: dict[str, str] = {}
    patience_s = LONGEST_S if place == "client" else PATIENCE_S
    async with standing(place, sink, seed) as (url, own, net), aiohttp.ClientSession() as session:
        await asked(session, url, "warm", False)
        net.fault = fault
        gate = asyncio.Semaphore(8)

        async def one(number: int) -> None:
            async with gate:
                ends[f"n{number}"] = await asked(
                    session, url, f"n{number}", number % 2 == 0, patience_s
                )

        await asyncio.gather(*map(one, range(requests)))
        at_work = await _at_work(own)
        net.fault = None
        recovery_s = await _recovered(url)
    # The record is written when the proxy has gone.
    known = {exchange.request_id for exchange in sink.exchanges}
    due = [id for id, end in ends.items() if place != "client" or end == "whole"]
    missing = sum(id not in known for id in due)
    return Seen(place, fault.name, Counter(ends.values()), missing, at_work, recovery_s)


async def _at_work(url: str) -> float:
    """Requests in flight, once the deadline and what this machine takes besides are over."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        samples = await scraped(url)
        if not total(samples, "headrace_in_flight"):
            return 0
        await asyncio.sleep(0.05)
    return total(samples, "headrace_in_flight")


async def _recovered(url: str) -> float:
    """Seconds until three requests in a row are answered."""
    began, good, number = time.monotonic(), 0, 0
    async with aiohttp.ClientSession() as session:
        while good < 3 and time.monotonic() - began < 30:
            end = await asked(session, url, f"after{number}", number % 2 == 0)
            good, number = (good + 1 if end == "whole" else 0), number + 1
    return time.monotonic() - began if good == 3 else float("inf")


async def table(places: Sequence[str], requests: int, seed: int) -> list[Seen]:
    """Every fault in these places."""
    return [await seen(place, fault, requests, seed) for place in places for fault in FAULTS]


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--requests", type=int, default=40, help="during each fault")
    given.add_argument("--place", action="append", choices=PLACES, help="these places alone")
    given.add_argument("--seed", type=int, default=1)
    asked_for = given.parse_args()
    logs.configure("critical")
    lines = asyncio.run(table(asked_for.place or PLACES, asked_for.requests, asked_for.seed))
    print("\n".join([HEAD, *(one.line for one in lines)]))
    sys.exit(not all(one.holds for one in lines))


if __name__ == "__main__":
    main()
