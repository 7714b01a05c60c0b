"""openai-python, synchronous."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI
from program import RESPONSE_FORMAT, TOOL, Client, Question, calls_of, main


def _client(q: Question) -> Any:
    return OpenAI(
        base_url=q.base_url, api_key=q.key, max_retries=q.retries, default_headers=q.headers
    )


class Sync(Client):
    packages = ("openai",)

    def __init__(self, make: Any = _client) -> None:
        self._make = make

    async def plain(self, q: Question) -> str:
        answer = self._make(q).chat.completions.create(model=q.model, messages=q.messages)
        return answer.choices[0].message.content

    async def stream(self, q: Question) -> list[str]:
        return [choice.delta.content or "" for choice in self._choices(q)]

    async def tools(self, q: Question) -> Any:
        answer = self._make(q).chat.completions.create(
            model=q.model, messages=q.messages, tools=[TOOL]
        )
        assert answer.choices[0].finish_reason == "tool_calls"
        return calls_of(answer.choices[0].message.tool_calls)

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        choices = self._choices(q, tools=[TOOL])
        deltas = [delta for choice in choices for delta in choice.delta.tool_calls or ()]
        assert choices[-1].finish_reason == "tool_calls"
        return calls_of(deltas)

    async def json_schema(self, q: Question) -> Any:
        answer = self._make(q).chat.completions.create(
            model=q.model, messages=q.messages, response_format=RESPONSE_FORMAT
        )
        return json.loads(answer.choices[0].message.content)

    async def usage(self, q: Question) -> Any:
        chunks = list(self._stream(q, stream_options={"include_usage": True}))
        assert chunks[-1].choices == []
        return chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens

    retry = plain

    async def cancel(self, q: Question) -> None:
        with self._stream(q) as stream:
            next(chunk for chunk in stream if chunk.choices)

    def _stream(self, q: Question, **more: Any) -> Any:
        return self._make(q).chat.completions.create(
            model=q.model, messages=q.messages, stream=True, **more
        )

    def _choices(self, q: Question, **more: Any) -> list[Any]:
        return [chunk.choices[0] for chunk in self._stream(q, **more) if chunk.choices]


if __name__ == "__main__":
    main(Sync)
