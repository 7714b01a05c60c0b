"""The client: the openai library, pointed at the proxy and at nothing else.

It holds every conversation to its end, streams a part of its requests, hands tool results back,
and notes what it got, from whom, and after which time. Nobody tells it who answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from openai import APIError, AsyncOpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion

from proxy.protocol.exchange import Answer
from proxy.protocol.openai import FunctionCall, ToolCall
from scripts.proof.traffic import Conversation, Turn

CLIENTS = 4
"""Conversations at a time."""
STREAMED = 4
"""One conversation of so many is streamed."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as the client saw it."""

    domain: str
    said: str
    expected: FunctionCall | None
    """What the references call; None where they answer in words."""
    got: Answer
    error: str = ""
    """The kind of the error that the client got; empty: none."""
    backend: str = ""
    adapter: str = ""
    fallback: str = ""
    """Why the plan's first backend did not answer; empty where it did."""
    seconds: float

    @property
    def is_local(self) -> bool:
        return bool(self.adapter)


class Client:
    """Asks a proxy for a domain's conversations."""

    def __init__(self, base_url: str, domain: str) -> None:
        self._domain = domain
        self._openai = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120)

    async def hold(
        self, conversations: Iterable[Conversation], at_once: int = CLIENTS
    ) -> list[Asked]:
        """Hold these conversations, so many at a time; every request that was made."""
        numbered = enumerate(conversations)
        async with asyncio.TaskGroup() as tasks:
            lines = [tasks.create_task(self._line(numbered)) for _ in range(at_once)]
        return [asked for line in lines for asked in line.result()]

    async def close(self) -> None:
        await self._openai.close()

    async def _line(self, numbered: Iterator[tuple[int, Conversation]]) -> list[Asked]:
        return [one for n, each in numbered for one in await self._converse(each, not n % STREAMED)]

    async def _converse(self, conversation: Conversation, streams: bool) -> list[Asked]:
        tools = [tool.offered for tool in conversation.tools]
        messages: list[dict[str, Any]] = []
        made: list[Asked] = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": turn.said})
            made.append(await self._ask(messages, tools, turn, turn.call, streams))
            messages.append(_said(made[-1].got))
            if made[-1].got.tool_calls:
                messages += _results(made[-1].got, turn)
                if turn.call is not None and turn.text:
                    made.append(await self._ask(messages, tools, turn, None, streams))
                    messages.append(_said(made[-1].got))
        return made

    async def _ask(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, object]],
        turn: Turn,
        expected: FunctionCall | None,
        streams: bool,
    ) -> Asked:
        began = time.monotonic()
        given: dict[str, Any] = {"model": "gpt-4o", "messages": messages, "tools": tools}
        headers: dict[str, str] = {}
        got, error = Answer(), ""
        try:
            got, headers = await (self._streamed(given) if streams else self._whole(given))
        except APIError as failed:
            error = type(failed).__name__
        return Asked(
            domain=self._domain,
            said=turn.said,
            expected=expected,
            got=got,
            error=error,
            backend=headers.get("x-headrace-backend", ""),
            adapter=headers.get("x-headrace-adapter", ""),
            fallback=headers.get("x-headrace-fallback-reason", ""),
            seconds=time.monotonic() - began,
        )

    async def _whole(self, given: dict[str, Any]) -> tuple[Answer, dict[str, str]]:
        response = await self._openai.chat.completions.with_raw_response.create(
            **given, temperature=0
        )
        return _answer(response.parse()), dict(response.headers)

    async def _streamed(self, given: dict[str, Any]) -> tuple[Answer, dict[str, str]]:
        response = await self._openai.chat.completions.with_raw_response.create(
            **given, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        state = ChatCompletionStreamState()
        async for chunk in response.parse():
            state.handle_chunk(chunk)
        return _answer(state.get_final_completion()), dict(response.headers)


def _answer(completion: ChatCompletion) -> Answer:
    choice = completion.choices[0]
    calls = [
        ToolCall(id=one.id, function=FunctionCall(one.function.name, one.function.arguments))
        for one in choice.message.tool_calls or ()
        if one.type == "function"
    ]
    return Answer(
        text=choice.message.content or "", tool_calls=calls, finish_reason=choice.finish_reason
    )


def _said(got: Answer) -> dict[str, Any]:
    """The assistant's message in the next request."""
    calls = [
        {"id": c.id, "type": "function", "function": msgspec.to_builtins(c.function)}
        for c in got.tool_calls
    ]
    said: dict[str, Any] = {"role": "assistant", "content": got.text or None}
    return said | ({"tool_calls": calls} if calls else {})


def _results(got: Answer, turn: Turn) -> list[dict[str, Any]]:
    """What the tools say; a call that should not have been made is refused."""
    said = turn.result or '{"error": "not now"}'
    return [{"role": "tool", "tool_call_id": c.id, "content": said} for c in got.tool_calls]
