"""LangChain: ChatOpenAI with `bind_tools` and `with_structured_output`."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from program import Client, Question, Weather, main


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


def _model(q: Question, **more: Any) -> Any:
    return ChatOpenAI(
        base_url=q.base_url,
        api_key=q.key,
        model=q.model,
        max_retries=q.retries,
        default_headers=q.headers,
        **more,
    )


class LangChain(Client):
    packages = ("langchain-openai", "langchain-core", "openai")

    def __init__(self, make: Any = _model) -> None:
        self._make = make

    async def plain(self, q: Question) -> str:
        return (await self._make(q).ainvoke(q.prompt)).content

    async def stream(self, q: Question) -> list[str]:
        return [chunk.content async for chunk in self._make(q).astream(q.prompt)]

    async def tools(self, q: Question) -> Any:
        answer = self._make(q).bind_tools([get_weather]).invoke(q.prompt)
        assert answer.response_metadata["finish_reason"] == "tool_calls"
        return _plain(answer.tool_calls)

    parallel_tools = tools

    async def streamed_tools(self, q: Question) -> Any:
        whole: Any = None
        async for chunk in self._make(q).bind_tools([get_weather]).astream(q.prompt):
            whole = chunk if whole is None else whole + chunk
        return _plain(whole.tool_calls)

    async def json_schema(self, q: Question) -> Any:
        model = self._make(q).with_structured_output(Weather, method="json_schema")
        return (await model.ainvoke(q.prompt)).model_dump()

    async def usage(self, q: Question) -> Any:
        whole: Any = None
        for chunk in self._make(q, stream_usage=True).stream(q.prompt):
            whole = chunk if whole is None else whole + chunk
        return whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]

    retry = plain

    async def cancel(self, q: Question) -> None:
        stream = self._make(q).stream(q.prompt)
        next(chunk for chunk in stream if chunk.content)
        stream.close()


def _plain(calls: Any) -> Any:
    return [(call["name"], call["args"]) for call in calls]


if __name__ == "__main__":
    main(LangChain)
