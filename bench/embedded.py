"""The embedded engine behind the whole proxy: latency and tokens/s at several concurrencies.

    .venv/bin/python bench/embedded.py [BASE_URL]     # against a running `make serve`

Requests are held-out questions of the shipped recipes with their tools, answered greedily; the
tools differ from request to request, so that little of a prompt is cached. Closed loop: each of C
clients sends its next request when its last one was answered.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from openai import APIStatusError, AsyncOpenAI
from rich.console import Console
from rich.table import Table

from trainer import recipe, sources
from trainer.curate.build import passing
from trainer.recipe import RECIPES
from trainer.rows import Row
from trainer.sources.base import Skips

REQUESTS = {1: 24, 4: 48, 16: 96}
"""Concurrency → requests: some half a minute each on two cores."""


class Answered(NamedTuple):
    seconds: float
    tokens: int | None
    """Of the answer; None where no valid one came (502)."""


def questions() -> list[Row]:
    """Held-out rows of both shipped recipes, alternating."""
    sides = []
    for name in ("api", "bookings"):
        read = recipe.read(RECIPES / f"{name}.yaml")
        rows = sources.rows(read.sources, Skips())
        sides.append(passing(rows, read).unseen)
    return [row for pair in zip(*sides, strict=False) for row in pair]


async def measure(base_url: str, rows: Sequence[Row], clients: int) -> tuple[float, list[Answered]]:
    """Wall time of asking `rows` by so many clients, and each answer's own."""
    waiting = iter(rows)
    answers: list[Answered] = []

    async def client(openai: AsyncOpenAI) -> None:
        for row in waiting:
            answers.append(await ask(openai, row))

    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as openai:
        began = time.monotonic()
        await asyncio.gather(*(client(openai) for _ in range(clients)))
        return time.monotonic() - began, answers


async def ask(openai: AsyncOpenAI, row: Row) -> Answered:
    """One request. Where the model makes no valid call the proxy says so: that counts too."""
    began = time.monotonic()
    try:
        completion = await openai.chat.completions.create(
            model="headrace",
            messages=wire(row.messages),
            tools=[{"type": "function", "function": f} for f in wire(row.functions)],
            temperature=0,
            max_tokens=256,
        )
    except APIStatusError:
        return Answered(time.monotonic() - began, None)
    assert completion.usage is not None
    return Answered(time.monotonic() - began, completion.usage.completion_tokens)


def wire(of: object) -> Any:
    """As a client's JSON would hold it."""
    return msgspec.json.decode(msgspec.json.encode(of))


async def run(base_url: str) -> Table:
    """One row a concurrency."""
    rows = questions()
    table = Table(
        *("clients", "requests", "invalid", "median latency", "p95", "requests/s", "tokens/s")
    )
    await measure(base_url, rows[:4], 2)  # warms the pipelines up
    first = 4
    for clients, count in REQUESTS.items():
        asked = [rows[(first + i) % len(rows)] for i in range(count)]
        first += count
        wall, answers = await measure(base_url, asked, clients)
        seconds = sorted(answer.seconds for answer in answers)
        table.add_row(
            str(clients),
            str(count),
            str(sum(answer.tokens is None for answer in answers)),
            f"{statistics.median(seconds):.2f} s",
            f"{seconds[int(len(seconds) * 0.95)]:.2f} s",
            f"{count / wall:.1f}",
            f"{sum(answer.tokens or 0 for answer in answers) / wall:.0f}",
        )
    return table


if __name__ == "__main__":
    base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/v1"
    console = Console()
    console.print(asyncio.run(run(base_url)))
    console.print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    )
