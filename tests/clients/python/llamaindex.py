"""LlamaIndex: OpenAILike, for servers that speak OpenAI's protocol."""

from __future__ import annotations

import gc
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from program import Client, Question, Weather, main, recording_tool


def _llm(q: Question, **more: Any) -> Any:
    return OpenAILike(
        api_base=q.base_url,
        api_key=q.key,
        model=q.model,
        max_retries=q.retries,
        default_headers=q.headers,
        is_chat_model=True,
        is_function_calling_model=True,
        **more,
    )


def _messages(q: Question) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=q.prompt)]


class LlamaIndex(Client):
    packages = ("llama-index-llms-openai-like", "llama-index-core", "openai")

    async def plain(self, q: Question) -> str:
        return (await _llm(q).achat(_messages(q))).message.content

    async def stream(self, q: Question) -> list[str]:
        return [answer.delta or "" async for answer in await _llm(q).astream_chat(_messages(q))]

    async def tools(self, q: Question) -> Any:
        llm, tool = _llm(q), _tool()
        return _calls(llm, await llm.achat_with_tools([tool], user_msg=q.prompt))

    async def parallel_tools(self, q: Question) -> Any:
        llm, tool = _llm(q), _tool()
        answer = llm.chat_with_tools([tool], user_msg=q.prompt, allow_parallel_tool_calls=True)
        return _calls(llm, answer)

    async def streamed_tools(self, q: Question) -> Any:
        llm, tool = _llm(q), _tool()
        answers = llm.stream_chat_with_tools(
            [tool], user_msg=q.prompt, allow_parallel_tool_calls=True
        )
        return _calls(llm, list(answers)[-1])

    async def json_schema(self, q: Question) -> Any:
        llm = _llm(q, should_use_structured_outputs=True)
        return llm.as_structured_llm(Weather).chat(_messages(q)).raw.model_dump()

    async def usage(self, q: Question) -> Any:
        options = {"include_usage": True}
        *_, last = _llm(q).stream_chat(_messages(q), stream_options=options)
        return last.raw.usage.prompt_tokens, last.raw.usage.completion_tokens

    async def retry(self, q: Question) -> str:
        return _llm(q).chat(_messages(q)).message.content

    async def cancel(self, q: Question) -> None:
        answers = _llm(q).stream_chat(_messages(q))
        next(answer for answer in answers if answer.delta)
        answers.close()
        # Its own generator holds the connection until it is collected.
        del answers
        gc.collect()


def _tool() -> FunctionTool:
    _, get_weather = recording_tool()
    return FunctionTool.from_defaults(get_weather)


def _calls(llm: Any, answer: Any) -> Any:
    return [(call.tool_name, call.tool_kwargs) for call in llm.get_tool_calls_from_response(answer)]


if __name__ == "__main__":
    main(LlamaIndex)
