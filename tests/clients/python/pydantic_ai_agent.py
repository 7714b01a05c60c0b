"""pydantic-ai: agents that run their tools and end with a typed output."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI
from program import OPENAI_ERRORS, Client, Question, Weather, main, recording_tool
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def _agent(q: Question, **more: Any) -> Any:
    client = AsyncOpenAI(
        base_url=q.base_url, api_key=q.key, max_retries=q.retries, default_headers=q.headers
    )
    model = OpenAIChatModel(q.model, provider=OpenAIProvider(openai_client=client))
    return Agent(model, **more)


class PydanticAI(Client):
    packages = ("pydantic-ai-slim", "openai")
    errors = dict.fromkeys(OPENAI_ERRORS, "ModelHTTPError")

    async def plain(self, q: Question) -> str:
        return (await _agent(q).run(q.prompt)).output

    async def stream(self, q: Question) -> list[str]:
        async with _agent(q).run_stream(q.prompt) as answer:
            return [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]

    async def tools(self, q: Question) -> Any:
        """The calls that the agent made before it came to an end."""
        called, tool = recording_tool()
        answer = await _agent(q, tools=[tool]).run(q.prompt)
        assert answer.output == "Paris is sunny."
        return _sorted(called)

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        called, tool = recording_tool()
        async with _agent(q, tools=[tool]).run_stream(q.prompt) as answer:
            assert await answer.get_output() == "Paris is sunny."
        return _sorted(called)

    async def json_schema(self, q: Question) -> Any:
        answer = await _agent(q, output_type=NativeOutput(Weather)).run(q.prompt)
        return answer.output.model_dump()

    async def usage(self, q: Question) -> Any:
        async with _agent(q).run_stream(q.prompt) as answer:
            await answer.get_output()
            usage = answer.usage() if callable(answer.usage) else answer.usage
        return usage.input_tokens, usage.output_tokens

    retry = plain

    async def cancel(self, q: Question) -> None:
        async with _agent(q).run_stream(q.prompt) as answer:
            async for _ in answer.stream_text(delta=True, debounce_by=None):
                break


def _sorted(called: Any) -> Any:
    """Calls by their city: an agent runs them side by side."""
    return sorted(called, key=lambda call: call[1]["city"])


if __name__ == "__main__":
    main(PydanticAI)
