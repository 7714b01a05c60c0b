"""What finding the domain and checking the answer cost, with 20 tools of realistic size.

    python bench/verification.py

Prints medians over rounds, beside the whole time that a request spends in Headrace: a real server
and client on this machine, and a local engine that answers at once.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import aiohttp
import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from proxy.backends.base import Call, Finish
from proxy.domains import Defaults, Domain
from proxy.protocol.openai import FunctionCall, ToolCall, Usage, parse_request
from proxy.protocol.toolcheck import check, check_tools
from proxy.routing import RouteTable
from tests.serving import Engine, serving_with, settings

TOOLS = 20
ROUNDS = 7
TIMES = 2000


def tool(number: int) -> dict[str, object]:
    """A function as APIs have them: ten arguments, two of them nested, all described."""
    fields = {
        "type": "object",
        "properties": {
            "street": {"type": "string", "description": "Street and number."},
            "city": {"type": "string", "description": "Name of the city, in English."},
            "country": {"type": "string", "enum": ["DE", "FR", "IT", "NO", "US"]},
        },
        "required": ["city"],
    }
    plain = {
        f"option_{index}": {"type": "string", "description": f"What option {index} is set to."}
        for index in range(6)
    }
    nested = {
        "address": fields,
        "items": {"type": "array", "items": fields, "description": "Where to stop on the way."},
        "count": {"type": "integer", "minimum": 1, "maximum": 100},
        "on": {"type": "string", "format": "date"},
    }
    parameters = {"type": "object", "properties": plain | nested, "required": ["address", "count"]}
    about = f"Books service {number} for a customer, and returns the booking's number."
    function = {"name": f"book_service_{number}", "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


ARGUMENTS = msgspec.json.encode({
    "address": {"street": "1 Main Street", "city": "Oslo", "country": "NO"},
    "items": [{"city": "Bergen"}, {"city": "Rome", "country": "IT"}],
    "count": 3,
    "on": "2026-11-22",
    "option_1": "a window seat",
}).decode()  # fmt: skip
CALL = ToolCall("call_1", FunctionCall("book_service_13", ARGUMENTS))
BODY = msgspec.json.encode({
    "model": "headrace",
    "messages": [{"role": "user", "content": "Book service 13 for three in Oslo."}],
    "tools": [tool(number) for number in range(TOOLS)],
})  # fmt: skip


def microseconds(work: Callable[[], object]) -> float:
    """Median time of a call, in µs: of ROUNDS rounds, the median one's median."""
    rounds = []
    for _ in range(ROUNDS):
        times = []
        for _ in range(TIMES):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        rounds.append(statistics.median(times))
    return statistics.median(rounds) * 1e6


async def overhead() -> Mapping[str, float]:
    """Median µs of a whole request, and of the part that Headrace says is its own."""
    usage = Finish(reason="stop", usage=Usage.of(1, 1))
    engine = Engine("local", [Call(CALL), usage])
    own, whole = [], []
    async with serving_with(settings("local"), engine) as url:
        async for took, told in _requests(url):
            whole.append(took)
            own.append(told)
    return {"own": statistics.median(own) * 1e3, "whole": statistics.median(whole) * 1e6}


async def _requests(url: str) -> AsyncIterator[tuple[float, float]]:
    headers = {"content-type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(TIMES // 4):
            began = time.perf_counter()
            async with session.post(f"{url}/chat/completions", data=BODY) as answer:
                await answer.read()
                yield time.perf_counter() - began, float(answer.headers["x-headrace-overhead-ms"])


def main() -> None:
    request = parse_request(BODY)
    domain = Domain(plan=["local"], tools=["book_service_*"])
    table = RouteTable({"bookings": domain}, Defaults("bookings", "bookings"), ["headrace"])
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{TOOLS} tools, {len(BODY) / 1024:.1f} KiB; medians of {ROUNDS} × {TIMES}")
    match = microseconds(lambda: table.match(request))
    answer = microseconds(lambda: check([CALL], request))
    print(f"find the domain           {match:8.1f} µs")
    print(f"check the answer          {answer:8.1f} µs")
    print(f"both                      {match + answer:8.1f} µs")
    print(f"parse the request         {microseconds(lambda: parse_request(BODY)):8.1f} µs")
    print(f"check the tools' schemas  {microseconds(lambda: check_tools(request)):8.1f} µs")
    seen = asyncio.run(overhead())
    print(f"own time of a request     {seen['own']:8.1f} µs (x-headrace-overhead-ms)")
    print(f"whole request, client's   {seen['whole']:8.1f} µs")


if __name__ == "__main__":
    main()
