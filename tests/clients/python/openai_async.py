"""openai-python, asynchronous."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from openai import AsyncOpenAI
from program import RESPONSE_FORMAT, TOOL, Client, Question, calls_of, main


def _client(q: Question) -> Any:
    return AsyncOpenAI(
        base_url=q.base_url, api_key=q.key, max_retries=q.retries, default_headers=q.headers
    )


class Async(Client):
    packages = ("openai",)

    def __init__(self, make: Any = _client) -> None:
        self._make = make

    async def plain(self, q: Question) -> str:
        return (await self._create(q)).choices[0].message.content

    async def stream(self, q: Question) -> list[str]:
        return [choice.delta.content or "" for choice in await self._choices(q)]

    async def tools(self, q: Question) -> Any:
        answer = await self._create(q, tools=[TOOL])
        assert answer.choices[0].finish_reason == "tool_calls"
        return calls_of(answer.choices[0].message.tool_calls)

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        choices = await self._choices(q, tools=[TOOL])
        deltas = [delta for choice in choices for delta in choice.delta.tool_calls or ()]
        assert choices[-1].finish_reason == "tool_calls"
        return calls_of(deltas)

    async def json_schema(self, q: Question) -> Any:
        answer = await self._create(q, response_format=RESPONSE_FORMAT)
        return json.loads(answer.choices[0].message.content)

    async def usage(self, q: Question) -> Any:
        stream = await self._create(q, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices == []
        return chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens

    retry = plain

    async def cancel(self, q: Question) -> None:
        """Left before its first byte, an answer in one piece."""
        asking = asyncio.create_task(self._create(q))
        await q.arrived()
        asking.cancel()

    async def _create(self, q: Question, **more: Any) -> Any:
        return await self._make(q).chat.completions.create(
            model=q.model, messages=q.messages, **more
        )

    async def _choices(self, q: Question, **more: Any) -> list[Any]:
        stream = await self._create(q, stream=True, **more)
        return [chunk.choices[0] async for chunk in stream if chunk.choices]


if __name__ == "__main__":
    main(Async)
