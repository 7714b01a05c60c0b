"""openai-python's helpers: `.stream()`, `.parse()` with Pydantic, `with_raw_response`."""

from __future__ import annotations

from typing import Any

import openai
from openai import OpenAI
from program import Client, Question, Weather, main
from pydantic import BaseModel


class GetWeather(BaseModel):
    """Weather of a city."""

    city: str


_TOOL = openai.pydantic_function_tool(GetWeather, name="get_weather")


def _completions(q: Question) -> Any:
    client = OpenAI(
        base_url=q.base_url, api_key=q.key, max_retries=q.retries, default_headers=q.headers
    )
    return client.chat.completions


class Helpers(Client):
    packages = ("openai",)

    async def plain(self, q: Question) -> str:
        raw = _completions(q).with_raw_response.create(model=q.model, messages=q.messages)
        assert raw.headers["x-request-id"] == raw.request_id
        return raw.parse().choices[0].message.content

    async def stream(self, q: Question) -> list[str]:
        with _completions(q).stream(model=q.model, messages=q.messages) as stream:
            pieces = [event.delta for event in stream if event.type == "content.delta"]
            assert stream.get_final_completion().choices[0].message.content == "".join(pieces)
        return pieces

    async def tools(self, q: Question) -> Any:
        answer = _completions(q).parse(model=q.model, messages=q.messages, tools=[_TOOL])
        return _parsed(answer)

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        with _completions(q).stream(model=q.model, messages=q.messages, tools=[_TOOL]) as stream:
            done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
            final = _parsed(stream.get_final_completion())
        assert [(e.name, e.parsed_arguments.model_dump()) for e in done] == final
        return final

    async def json_schema(self, q: Question) -> Any:
        answer = _completions(q).parse(model=q.model, messages=q.messages, response_format=Weather)
        return answer.choices[0].message.parsed.model_dump()

    async def usage(self, q: Question) -> Any:
        options = {"include_usage": True}
        with _completions(q).stream(
            model=q.model, messages=q.messages, stream_options=options
        ) as stream:
            usage = stream.get_final_completion().usage
        return usage.prompt_tokens, usage.completion_tokens

    async def retry(self, q: Question) -> str:
        raw = _completions(q).with_raw_response.create(model=q.model, messages=q.messages)
        assert raw.retries_taken == 1
        return raw.parse().choices[0].message.content

    async def cancel(self, q: Question) -> None:
        with _completions(q).stream(model=q.model, messages=q.messages) as stream:
            next(event for event in stream if event.type == "content.delta")


def _parsed(answer: Any) -> Any:
    calls = answer.choices[0].message.tool_calls
    return [(call.function.name, call.function.parsed_arguments.model_dump()) for call in calls]


if __name__ == "__main__":
    main(Helpers)
