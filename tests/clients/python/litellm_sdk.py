"""litellm's SDK as a client of an OpenAI-compatible server."""

from __future__ import annotations

import json
import os
from typing import Any

# Without this it fetches its list of prices while it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from program import OPENAI_ERRORS, RESPONSE_FORMAT, TOOL, Client, Question, calls_of, main

litellm.suppress_debug_info = True


async def _ask(q: Question, **more: Any) -> Any:
    return await litellm.acompletion(
        model=f"openai/{q.model}",
        api_base=q.base_url,
        api_key=q.key,
        messages=q.messages,
        max_retries=q.retries,
        extra_headers=q.headers,
        **more,
    )


class LiteLLM(Client):
    packages = ("litellm", "openai")
    errors = OPENAI_ERRORS | {
        403: "APIError",
        409: "BadRequestError",
        413: "BadRequestError",
        415: "BadRequestError",
        422: "BadRequestError",
        502: "BadGatewayError",
        503: "ServiceUnavailableError",
        504: "Timeout",
    }

    async def plain(self, q: Question) -> str:
        return (await _ask(q)).choices[0].message.content

    async def stream(self, q: Question) -> list[str]:
        return [choice.delta.content or "" for choice in await _choices(q)]

    async def tools(self, q: Question) -> Any:
        answer = await _ask(q, tools=[TOOL])
        assert answer.choices[0].finish_reason == "tool_calls"
        return calls_of(answer.choices[0].message.tool_calls)

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        choices = await _choices(q, tools=[TOOL])
        assert choices[-1].finish_reason == "tool_calls"
        return calls_of(delta for choice in choices for delta in choice.delta.tool_calls or ())

    async def json_schema(self, q: Question) -> Any:
        answer = await _ask(q, response_format=RESPONSE_FORMAT)
        return json.loads(answer.choices[0].message.content)

    async def usage(self, q: Question) -> Any:
        stream = await _ask(q, stream=True, stream_options={"include_usage": True})
        usage = [chunk.usage async for chunk in stream if getattr(chunk, "usage", None)][-1]
        return usage.prompt_tokens, usage.completion_tokens

    retry = plain

    async def cancel(self, q: Question) -> None:
        stream = await _ask(q, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.aclose()


async def _choices(q: Question, **more: Any) -> list[Any]:
    stream = await _ask(q, stream=True, **more)
    return [chunk.choices[0] async for chunk in stream if chunk.choices]


if __name__ == "__main__":
    main(LiteLLM)
