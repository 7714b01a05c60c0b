"""An expert that is wrong three times in ten, and clients that never notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from openai import AsyncOpenAI

from proxy.backends.base import Ask, Event, Generated, Text, lacks_locally
from proxy.errors import BackendUnavailable, InvalidAnswer
from proxy.protocol.openai import ChatRequest
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import chunk, completion, scripted_cloud, stream
from tests.serving import call, finish, serving_with, settings
from tests.wire import TOOLS, cloud_backend

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
RIGHT = [call("ping", '{"host":"a"}'), finish()]
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

    async def _answer(self, number: int) -> AsyncIterator[Event]:
        steps = WRONG[_kind(number)][1] if _is_wrong(number) else RIGHT
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield step

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


def _is_wrong(number: int) -> bool:
    return number % 10 in (1, 4, 7)


def _kind(number: int) -> int:
    return number % len(WRONG)


async def test_every_client_gets_a_valid_call_and_the_record_names_every_failure():
    for streams in (False, True):
        await _all_are_rescued(streams)


async def _all_are_rescued(streams: bool) -> None:
    sink = MemorySink()
    async with scripted_cloud() as cloud:
        cloud.plays(
            *(
                stream(chunk(SAID), chunk({}, "tool_calls"))
                if streams
                else [scripted.answer(completion(SAID, "tool_calls"))]
            )
        )
        backends = Expert(), cloud_backend(cloud)
        async with serving_with(settings("expert", "cloud"), *backends, sink=sink) as url:
            client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
            async with client:
                questions = range(REQUESTS)
                asked = (_asked(client, number, streams) for number in questions)
                calls = await asyncio.gather(*asked)
    for number, (name, arguments) in zip(questions, calls, strict=True):
        expected = "cloud" if _is_wrong(number) else "a"
        assert (name, msgspec.json.decode(arguments)) == ("ping", {"host": expected})
    named = Counter(e.attempts[0].reason for e in sink.exchanges)
    wrong = Counter(WRONG[_kind(n)][0] for n in questions if _is_wrong(n))
    assert named == wrong + Counter({None: REQUESTS - sum(wrong.values())})
    assert sum(wrong.values()) == 30
    assert all(e.outcome == "completed" for e in sink.exchanges)


async def _asked(client: AsyncOpenAI, number: int, streams: bool) -> tuple[str, str]:
    question: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": str(number)}],
        "tools": msgspec.json.decode(TOOLS),
    }
    if streams:
        async with client.chat.completions.stream(**question) as events:
            completed = await events.get_final_completion()
    else:
        completed = await client.chat.completions.create(**question)
    (made,) = completed.choices[0].message.tool_calls or ()
    assert made.type == "function"
    return made.function.name, made.function.arguments
