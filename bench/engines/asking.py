"""Chat requests to a server, streamed and timed, and what they ask."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from openai import APIStatusError, AsyncOpenAI, omit

from bench.embedded import questions, wire
from bench.engines.servers import ADAPTERS, ROOT, Server
from bench.gateways.processes import used
from trainer.rows import Row

ANSWER = 32
"""Tokens of an answer to a text."""
_LONGEST = 256
"""Tokens of an answer to a question with tools."""
_PATIENCE_S = 300.0
_WORDS = 220
_STRAYS = 4
"""Of the questions to agents, one in so many fits none of the tools."""


class Question(NamedTuple):
    """A row's question, and the adapter that shall answer."""

    row: Row
    adapter: str


class Timed(NamedTuple):
    """One answer; seconds since it was asked for."""

    first: float
    whole: float
    tokens: int
    prompt: int
    is_call: bool


class Round(NamedTuple):
    """What became of some requests."""

    wall: float
    """Seconds."""
    processor: float
    """Seconds on it, of all the server's processes."""
    answers: list[Timed]
    refused: int
    """Requests without a valid answer: the proxy says so with a status of its own."""

    @property
    def tokens(self) -> int:
        """Of all answers."""
        return sum(one.tokens for one in self.answers)


def together(server: Server, prompts: Sequence[str | Question], clients: int) -> Round:
    """A closed loop of so many clients."""
    return asyncio.run(_together(server, prompts, clients))


async def _together(server: Server, prompts: Sequence[str | Question], clients: int) -> Round:
    waiting = iter(prompts)
    answers: list[Timed | None] = []

    async def client(openai: AsyncOpenAI) -> None:
        for prompt in waiting:
            answers.append(await _asked(openai, server.model, prompt))

    async with AsyncOpenAI(
        base_url=server.base_url, api_key="none", max_retries=0, timeout=_PATIENCE_S
    ) as openai:
        began, before = time.monotonic(), used(server.group)
        await asyncio.gather(*(client(openai) for _ in range(clients)))
        wall, processor = time.monotonic() - began, used(server.group).since(before)
    good = [one for one in answers if one is not None]
    return Round(wall, processor, good, len(answers) - len(good))


async def _asked(openai: AsyncOpenAI, model: str, prompt: str | Question) -> Timed | None:
    """One answer, streamed; None where the proxy found no valid one."""
    began, first, is_call, usage = time.monotonic(), 0.0, False, None
    try:
        stream = await openai.chat.completions.create(
            model=model,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            **_told(prompt),
        )
        async for chunk in stream:
            delta = chunk.choices[0].delta if chunk.choices else None
            if not first and delta is not None and (delta.content or delta.tool_calls):
                first, is_call = time.monotonic() - began, bool(delta.tool_calls)
            usage = chunk.usage or usage
    except APIStatusError:
        return None
    if usage is None:
        return None
    whole = time.monotonic() - began
    return Timed(first or whole, whole, usage.completion_tokens, usage.prompt_tokens, is_call)


def _told(prompt: str | Question) -> dict[str, object]:
    if isinstance(prompt, str):
        return {"messages": [{"role": "user", "content": prompt}], "max_tokens": ANSWER}
    tools = [{"type": "function", "function": f} for f in wire(prompt.row.functions)]
    return {
        "messages": wire(prompt.row.messages),
        "max_tokens": _LONGEST,
        "tools": tools or omit,
        "extra_headers": {"x-headrace-adapter": prompt.adapter},
    }


# ------------------------------------------------------------------ what is asked


def texts() -> Iterator[str]:
    """Texts of some 330 tokens without end, each with a beginning of its own."""
    words = (ROOT / "LICENSE").read_text().split()
    for number in itertools.count():
        at = 97 * number % (len(words) - _WORDS)
        yield f"Question {number}. Go on with this text: {' '.join(words[at : at + _WORDS])}"


class Traffic:
    """Held-out questions for three adapters.

    Agents: the three lists of tools with most questions, an adapter each. With every round they
    change adapters, so that three rounds ask no adapter anything twice. Strangers: a question with
    each of the other lists, the adapters in turn.
    """

    def __init__(self) -> None:
        rows = questions()
        alike: dict[bytes, list[Row]] = defaultdict(list)
        for row in rows:
            if row.calls:
                alike[msgspec.json.encode(row.functions)].append(row)
        by_count = sorted(alike.values(), key=len, reverse=True)
        self._agents, rest = by_count[: len(ADAPTERS)], by_count[len(ADAPTERS) :]
        self._strangers = itertools.cycle(rows[0] for rows in rest)
        self._strays = [row for row in rows if not row.calls]

    def warming(self) -> list[Question]:
        """Each agent's tools to each adapter, once."""
        pairs = itertools.product(self._agents, ADAPTERS)
        return [Question(self._stray(rows[0], 0), adapter) for rows, adapter in pairs]

    def of_agents(self, number: int, count: int) -> list[Question]:
        """A round: the agents in turn; one question in four fits none of its agent's tools."""
        return [self._of_agent(number, at) for at in range(count)]

    def of_strangers(self, count: int) -> list[Question]:
        """The next ones."""
        rows = itertools.islice(self._strangers, count)
        return [Question(row, ADAPTERS[at % len(ADAPTERS)]) for at, row in enumerate(rows)]

    def _of_agent(self, number: int, at: int) -> Question:
        agent = at % len(self._agents)
        rows = self._agents[agent]
        row = rows[at // len(self._agents) % len(rows)]
        if at % _STRAYS == _STRAYS - 1:
            row = self._stray(row, 1 + at // _STRAYS)
        return Question(row, ADAPTERS[(agent + number) % len(ADAPTERS)])

    def _stray(self, row: Row, at: int) -> Row:
        return msgspec.structs.replace(row, messages=self._strays[at % len(self._strays)].messages)
