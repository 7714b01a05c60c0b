"""openai-python's Responses API."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI
from program import PARAMETERS, Client, Question, Weather, main

_TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": PARAMETERS,
    "strict": True,
}


def _responses(q: Question) -> Any:
    client = OpenAI(
        base_url=q.base_url, api_key=q.key, max_retries=q.retries, default_headers=q.headers
    )
    return client.responses


def _asked(q: Question) -> dict[str, Any]:
    return {"model": q.model, "input": q.prompt}


class Responses(Client):
    packages = ("openai",)

    async def plain(self, q: Question) -> str:
        return _responses(q).create(**_asked(q)).output_text

    async def stream(self, q: Question) -> list[str]:
        with _responses(q).stream(**_asked(q)) as stream:
            pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
            assert stream.get_final_response().output_text == "".join(pieces)
        return pieces

    async def tools(self, q: Question) -> Any:
        return _calls(_responses(q).create(tools=[_TOOL], **_asked(q)))

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        with _responses(q).stream(tools=[_TOOL], **_asked(q)) as stream:
            return _calls(stream.get_final_response())

    async def json_schema(self, q: Question) -> Any:
        answer = _responses(q).parse(text_format=Weather, **_asked(q))
        return answer.output_parsed.model_dump()

    async def usage(self, q: Question) -> Any:
        with _responses(q).stream(**_asked(q)) as stream:
            usage = stream.get_final_response().usage
        return usage.input_tokens, usage.output_tokens

    retry = plain

    async def cancel(self, q: Question) -> None:
        with _responses(q).create(stream=True, **_asked(q)) as stream:
            next(event for event in stream if event.type == "response.output_text.delta")


def _calls(answer: Any) -> Any:
    calls = [item for item in answer.output if item.type == "function_call"]
    return [(call.name, json.loads(call.arguments)) for call in calls]


if __name__ == "__main__":
    main(Responses)
