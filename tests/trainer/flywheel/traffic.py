"""Traffic for a flywheel: questions about five tools, through a real proxy, to a scripted cloud."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.scripted import KEPT, Received, ScriptedCloud, Step, answer, completion, reachable
from tests.serving import serving, settings

CITIES = ("Oslo", "Lima", "Rome", "Kyiv", "Bonn", "Faro", "Graz", "Nice", "Pisa", "York", "Cork")
QUESTIONS = {
    "weather": "Will it rain in {} on day {}?",
    "hotel": "Find me a room in {} for {} nights.",
    "taxi": "A cab through {} for {} people, please.",
    "museum": "Which exhibitions has {} got in week {}?",
    "ferry": "When do boats leave {} with {} cars?",
}


class Teacher(ScriptedCloud):
    """A cloud that calls the tool that a question is about, with its city and number."""

    def script_for(self, request: Received) -> tuple[Step, ...]:
        asked = request.json["messages"][-1]["content"]  # type: ignore[index]
        tool, city, number = next(one for one in _all() if _question(*one) == asked)
        arguments = msgspec.json.encode({"city": city, "number": number}).decode()
        call = {"name": tool, "arguments": arguments}
        made = [{"id": f"call_{random.getrandbits(64):x}", "type": "function", "function": call}]
        told = completion({"role": "assistant", "content": None, "tool_calls": made}, "tool_calls")
        return (answer(told | {"id": f"chatcmpl-{random.getrandbits(64):x}"}, KEPT),)


def record(directory: Path, first: int, last: int) -> None:
    """Record the exchanges from number `first` up to, and without, `last`, of at most 300."""
    asyncio.run(_drive(directory, list(itertools.islice(_all(), first, last))))


async def _drive(directory: Path, asked: Iterable[tuple[str, str, int]]) -> None:
    async with _proxy(directory) as base_url, aiohttp.ClientSession() as http:
        for one in asked:
            async with http.post(f"{base_url}/chat/completions", json=_body(*one)) as response:
                response.raise_for_status()
                await response.read()


@asynccontextmanager
async def _proxy(directory: Path) -> AsyncIterator[str]:
    cloud = Teacher()
    async with reachable(cloud):
        config = settings(f"cloud={cloud.base_url}", extra=f"record: {{directory: '{directory}'}}")
        async with serving(config) as base_url:
            yield base_url


def _all() -> list[tuple[str, str, int]]:
    """(tool, city, number), the tools in turns."""
    combined = itertools.product(range(2, 9), CITIES, QUESTIONS)
    return [(tool, city, number) for number, city, tool in combined]


def _question(tool: str, city: str, number: int) -> str:
    return QUESTIONS[tool].format(city, number)


def _body(tool: str, city: str, number: int) -> dict[str, Any]:
    offered = [tool, *(other for other in QUESTIONS if other != tool)][:3]
    return {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": _question(tool, city, number)}],
        "tools": [{"type": "function", "function": _function(name)} for name in offered],
    }


def _function(name: str) -> dict[str, Any]:
    properties = {"city": {"type": "string"}, "number": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["city", "number"]}
    return {"name": name, "description": f"Does {name}.", "parameters": schema}
