"""Instructor: answers as Pydantic models, by tools and by JSON schema."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import instructor
from openai import AsyncOpenAI, OpenAI
from program import Client, Question, Weather, main
from pydantic import BaseModel


class get_weather(BaseModel):  # noqa: N801  # its name is the tool's
    """Weather of a city."""

    city: str


def _client(q: Question, mode: Any = instructor.Mode.TOOLS) -> Any:
    openai = OpenAI(
        base_url=q.base_url, api_key=q.key, max_retries=q.retries, default_headers=q.headers
    )
    return instructor.from_openai(openai, mode=mode)


def _asked(q: Question) -> dict[str, Any]:
    return {"model": q.model, "messages": q.messages, "max_retries": 0}


class Instructor(Client):
    packages = ("instructor", "openai")
    single = ("streamed_tools",)

    async def plain(self, q: Question) -> str:
        return _client(q).create(response_model=None, **_asked(q)).choices[0].message.content

    async def stream(self, q: Question) -> list[str]:
        chunks = _client(q).create(response_model=None, stream=True, **_asked(q))
        return [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]

    async def tools(self, q: Question) -> Any:
        return [_plain(_client(q).create(response_model=get_weather, **_asked(q)))]

    async def parallel_tools(self, q: Question) -> Any:
        client = _client(q, instructor.Mode.PARALLEL_TOOLS)
        answers = client.create(response_model=Iterable[get_weather], **_asked(q))
        return [_plain(answer) for answer in answers]

    async def streamed_tools(self, q: Question) -> Any:
        *_, last = _client(q).create_partial(response_model=get_weather, **_asked(q))
        return [_plain(last)]

    async def json_schema(self, q: Question) -> Any:
        client = _client(q, instructor.Mode.JSON_SCHEMA)
        return client.create(response_model=Weather, **_asked(q)).model_dump()

    async def usage(self, q: Question) -> Any:
        options = {"include_usage": True}
        *_, last = _client(q).create(
            response_model=None, stream=True, stream_options=options, **_asked(q)
        )
        return last.usage.prompt_tokens, last.usage.completion_tokens

    async def retry(self, q: Question) -> str:
        return await self.plain(q)

    async def cancel(self, q: Question) -> None:
        """By cancelling the task: its streams of objects are read to their end at once."""
        openai = AsyncOpenAI(base_url=q.base_url, api_key=q.key, max_retries=0)
        client = instructor.from_openai(openai)
        asking = asyncio.create_task(client.create(response_model=Weather, **_asked(q)))
        await q.arrived()
        asking.cancel()


def _plain(called: Any) -> Any:
    return type(called).__name__.removeprefix("Partial"), called.model_dump()


if __name__ == "__main__":
    main(Instructor)
