"""An expert that is wrong three times in ten in front of a cloud, and what a client must get."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import msgspec

from proxy.backends.base import Ask, Event, Generated, Text, lacks_locally
from proxy.errors import BackendUnavailable, InvalidAnswer
from proxy.protocol.openai import ChatRequest
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import Step, chunk, completion, scripted_cloud, stream
from tests.serving import call, finish, serving_with, settings
from tests.wire import cloud_backend

REQUESTS = 100
WRONG: list[tuple[str, list[Event | Exception]]] = [
    ("schema_violation", [call("ping", '{"host":1}'), finish()]),
    ("arguments_not_json", [call("ping", '{"host":'), finish()]),
    ("arguments_not_object", [call("ping", "[]"), finish()]),
    ("unknown_tool", [call("pong", "{}"), finish()]),
    ("unknown_tool", [Text("Let me see."), call("pong", "{}"), finish()]),
    ("broken_call", [Text("Let me see."), InvalidAnswer("cut", "broken_call")]),
    ("backend_unavailable", [BackendUnavailable("died")]),
]
Made: TypeAlias = "tuple[str, str]"
"""A call that a client was given: the tool's name and its arguments, JSON."""
AskAll: TypeAlias = Callable[[str, int, bool], Awaitable[list[Made]]]
"""Asks questions 0 to n - 1 of a base URL, streamed or not."""

RIGHT: list[Event] = [call("ping", '{"host":"a"}'), finish()]
SAID = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "index": 0,
            "id": "call_cloud",
            "type": "function",
            "function": {"name": "ping", "arguments": '{"host":"cloud"}'},
        }
    ],
}


class Expert:
    """A local backend whose answer to question n is wrong for three in ten of the n."""

    name = "expert"
    is_local = True

    def lacks(self, request: ChatRequest) -> str | None:
        return lacks_locally(request)

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        yield Generated(self._answer(int(ask.request.messages[0].text)))

    async def _answer(self, number: int) -> AsyncIterator[list[Event]]:
        steps = WRONG[_kind(number)][1] if _is_wrong(number) else RIGHT
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield [step]

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


def _is_wrong(number: int) -> bool:
    return number % 10 in (1, 4, 7)


def _kind(number: int) -> int:
    return number % len(WRONG)


async def check_all_are_rescued(ask_all: AskAll, streams: bool) -> int:
    """How many of the answers were rescued; fails unless every client got a valid call, and the
    record names every failure."""
    sink = MemorySink()
    async with scripted_cloud() as cloud:
        cloud.plays(*_said(streams))
        backends = Expert(), cloud_backend(cloud)
        async with serving_with(settings("expert", "cloud"), *backends, sink=sink) as url:
            calls = await ask_all(url, REQUESTS, streams)
    for number, (name, arguments) in zip(range(REQUESTS), calls, strict=True):
        expected = "cloud" if _is_wrong(number) else "a"
        assert (name, msgspec.json.decode(arguments)) == ("ping", {"host": expected})
    named = Counter(e.attempts[0].reason for e in sink.exchanges)
    wrong = Counter(WRONG[_kind(n)][0] for n in range(REQUESTS) if _is_wrong(n))
    assert named == wrong + Counter({None: REQUESTS - sum(wrong.values())})
    assert all(e.outcome == "completed" for e in sink.exchanges)
    return sum(wrong.values())


def _said(streams: bool) -> list[Step]:
    if streams:
        return stream(chunk(SAID), chunk({}, "tool_calls"))
    return [scripted.answer(completion(SAID, "tool_calls"))]
