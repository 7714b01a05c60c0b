"""Traffic for a record: BFCL's questions, through a real proxy, to a cloud that knows the answers.

    python scripts/drive_traffic.py RECORD [--exchanges 20000]

Conversations as agents have them: a question with tools, the cloud's call, the tool's result, which
is an error now and then, and the cloud's last word. Some get a demonstration or a thumb. Ends with
how many exchanges were made, and in which time. Needs the package bfcl-eval.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from proxy.protocol.openai import Message, PastCall, Tool
from tests.scripted import KEPT, Received, ScriptedCloud, Step, answer, completion, reachable
from tests.serving import serving, settings
from trainer.recipe.sources import BfclSettings
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.bfcl import BfclSource

CATEGORIES = ["simple_python", "multiple", "live_simple", "live_multiple", "live_irrelevance"]
CLIENTS = 16
ERRORS, DEMONSTRATIONS, THUMBS = 0.05, 0.02, 0.1
"""Share of tool results that are errors, and of conversations that get feedback."""


@dataclass
class Teacher(ScriptedCloud):
    """A cloud that gives each question BFCL's answer, and thanks for each tool's result."""

    answers: dict[str, Row] = field(default_factory=dict)

    def script_for(self, request: Received) -> tuple[Step, ...]:
        # What was asked is kept by no one: 20 000 requests would stay in memory.
        self.requests.clear()
        messages = msgspec.convert(request.json["messages"], list[Message])
        said = messages[-1]
        if said.role == "tool":
            told = completion({"role": "assistant", "content": f"This is it: {said.text}"})
            return _played(told)
        row = self.answers[said.text.partition(" [")[0]]
        return _played(completion(_message(row), "tool_calls" if row.calls else "stop"))


def _played(told: dict[str, object]) -> tuple[Step, ...]:
    """An answer with an id of its own, by which the record knows it."""
    return (answer(told | {"id": f"chatcmpl-{random.getrandbits(64):x}"}, KEPT),)


def _message(row: Row) -> dict[str, object]:
    calls = [
        {"id": f"call_{random.getrandbits(64):x}", "type": "function", "function": call}
        for call in row.calls
    ]
    said = {"role": "assistant", "content": row.text or None}
    return said | ({"tool_calls": calls} if calls else {})


@dataclass
class Driver:
    """Asks until there are enough exchanges."""

    http: aiohttp.ClientSession
    base_url: str
    wanted: int
    chance: random.Random
    made: int = 0

    async def converse(self, turns: Iterator[tuple[int, Row]]) -> None:
        """One client: conversation after conversation."""
        for number, row in turns:
            if self.made >= self.wanted:
                return
            await self._one(number, row)

    async def _one(self, number: int, row: Row) -> None:
        asked = Message(role="user", content=f"{row.messages[-1].text} [{number}]")
        messages = [*row.messages[:-1], asked]
        id, said = await self._ask(messages, row, number)
        await self._judge(id, row)
        calls = [msgspec.convert(call, PastCall) for call in said.get("tool_calls") or ()]
        if calls and self.made < self.wanted:
            results = [self._result(call) for call in calls]
            called = Message(role="assistant", tool_calls=calls)
            await self._ask([*messages, called, *results], row, number)

    def _result(self, call: PastCall) -> Message:
        failed = self.chance.random() < ERRORS
        said = '{"error": "out of reach"}' if failed else f'{{"ok": {self.chance.randrange(1000)}}}'
        return Message(role="tool", tool_call_id=call.id, content=said)

    async def _ask(
        self, messages: list[Message], row: Row, number: int
    ) -> tuple[str, dict[str, list[object]]]:
        self.made += 1
        body: dict[str, object] = {"model": "gpt-4o", "messages": messages}
        if row.functions:
            body["tools"] = [Tool("function", function) for function in row.functions]
        headers = {"x-headrace-conversation": f"drive-{number}", "content-type": "application/json"}
        async with self.http.post(
            f"{self.base_url}/chat/completions", data=msgspec.json.encode(body), headers=headers
        ) as response:
            told = msgspec.json.decode(await response.read())
            response.raise_for_status()
        return told["id"], told["choices"][0]["message"]

    async def _judge(self, exchange: str, row: Row) -> None:
        draw = self.chance.random()
        if draw < DEMONSTRATIONS:
            given = {"kind": "demonstration", "value": _message(row)}
        elif draw < DEMONSTRATIONS + THUMBS:
            given = {"kind": "boolean", "name": "helpful", "value": self.chance.random() < 0.9}
        else:
            return
        body = msgspec.json.encode(given | {"exchange_id": exchange})
        headers = {"content-type": "application/json"}
        async with self.http.post(
            f"{self.base_url}/feedback", data=body, headers=headers
        ) as response:
            response.raise_for_status()


async def drive(record: Path, exchanges: int, seed: int = 0) -> int:
    """Make so many exchanges in a record; how many it became."""
    read = BfclSource(BfclSettings(categories=CATEGORIES), Skips()).rows()
    # A question that stands twice has one answer here: the last one.
    rows = list({row.question: row for row in read if " [" not in row.question}.values())
    chance = random.Random(seed)
    chance.shuffle(rows)
    teacher = Teacher(answers={row.question: row for row in rows})
    turns = enumerate(itertools.cycle(rows))
    async with _proxy(teacher, record) as base_url, aiohttp.ClientSession() as http:
        driver = Driver(http, base_url, exchanges, chance)
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(driver.converse(turns))
    return driver.made


@asynccontextmanager
async def _proxy(teacher: Teacher, record: Path) -> AsyncIterator[str]:
    async with reachable(teacher):
        config = settings(f"cloud={teacher.base_url}", extra=f"record: {{directory: '{record}'}}")
        async with serving(config) as base_url:
            yield base_url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path, help="directory, made when it is missing")
    parser.add_argument("--exchanges", type=int, default=20_000)
    options = parser.parse_args()
    # One line a request is one line too many.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = time.monotonic()
    made = asyncio.run(drive(options.record.resolve(), options.exchanges))
    print(f"{made} exchanges in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
