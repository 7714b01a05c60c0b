"""What a vLLM server is told, and how its answers are read; SGLang as a variant.

Native mode is `/v1/completions` with the token ids of a prompt of ours; chat mode is
`/v1/chat/completions`, with the server's own template and tool parser. Source: vLLM's OpenAI
server, 0.32; SGLang's documentation of LoRA serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from proxy.backends import http
from proxy.backends.chat_answers import ChatAnswer, Completion, completion
from proxy.backends.dialect import Conversation, End, Generation, Output, Outputs, Piece
from proxy.backends.vllm import body as bodies
from proxy.backends.vllm import errors
from proxy.errors import BackendUnavailable
from proxy.protocol.adapter import Adapter
from proxy.protocol.openai import ChatRequest, FinishReason, Usage

_MAX_LOGPROB_FLOOR = -9999.0
"""What vLLM sends for minus infinity."""


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _Choice(msgspec.Struct):
    text: str = ""
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class _Completion(msgspec.Struct):
    """A chunk of `/v1/completions`, or a whole one."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    error: object = None


class _Model(msgspec.Struct):
    id: str
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class Vllm:
    """vLLM 0.12 and later, or SGLang."""

    loads_at_run_time = True

    def __init__(
        self,
        *,
        base: str,
        adapters_there: str,
        end: int,
        flavor: Literal["vllm", "sglang"] = "vllm",
    ) -> None:
        """`base` is the base model's name there, `adapters_there` the adapters' directory there,
        `end` the id of the token that ends a turn."""
        self._base = base
        self._adapters_there = adapters_there.rstrip("/")
        self._end = end
        self._is_sglang = flavor == "sglang"
        self._root = "" if self._is_sglang else "/v1"

    def lacks(self, request: ChatRequest, mode: Literal["native", "chat"]) -> str | None:
        return None

    async def generate(self, session: http.Session, url: str, generation: Generation) -> Outputs:
        body = {
            "model": self._model(generation.adapter),
            "prompt": generation.prompt.ids,
            "stop_token_ids": [self._end],
            "logprobs": 1,
            **bodies.streamed(generation.sampling),
            **({} if self._is_sglang else bodies.constrained(generation.constraint)),
            **({} if self._is_sglang else bodies.apart(generation.tenant)),
        }
        usage: Usage | None = None
        finish: FinishReason | None = None
        async with http.post(
            session, f"{url}/v1/completions", body, errors.of_response
        ) as response:
            async for contents in http.contents(response):
                pieces: list[Output] = []
                for chunk in map(_chunk, contents):
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        finish = _reason(choice.finish_reason) or finish
                        if choice.text or choice.logprobs:
                            pieces.append(_piece(choice))
                if pieces:
                    yield pieces
        if finish is not None:
            yield [_ended(finish, usage)]

    async def chat(self, session: http.Session, url: str, conversation: Conversation) -> Outputs:
        strict = conversation.constrain and not self._is_sglang
        body = bodies.chat(conversation, self._model(conversation.adapter), strict)
        if not self._is_sglang:
            body |= bodies.apart(conversation.tenant)
        answer = ChatAnswer()
        async with http.post(
            session, f"{url}/v1/chat/completions", body, errors.of_response
        ) as response:
            async for contents in http.contents(response):
                said = [one for content in contents for one in answer.feed(_said(content))]
                if said:
                    yield said
        yield list(answer.end())

    async def healthy(self, session: http.Session, url: str) -> bool:
        return await http.is_well(session, url)

    async def adapters(self, session: http.Session, url: str) -> set[str] | None:
        status, body = await http.get(session, f"{url}/v1/models")
        if status != 200:
            raise BackendUnavailable(f"the engine does not list its models ({status})")
        try:
            models = msgspec.json.decode(body, type=_Models).data
        except (ValueError, RecursionError) as error:
            raise BackendUnavailable("the engine's list of models cannot be read") from error
        return {model.id for model in models if model.parent}

    async def load(self, session: http.Session, url: str, adapter: Adapter) -> None:
        path = f"{self._adapters_there}/{adapter.path.name}"
        body = {"lora_name": adapter.id, "lora_path": path}
        await _tell(session, f"{url}{self._root}/load_lora_adapter", body)

    async def unload(self, session: http.Session, url: str, adapter: str) -> None:
        body = {"lora_name": adapter}
        await _tell(session, f"{url}{self._root}/unload_lora_adapter", body)

    async def greedy(
        self,
        session: http.Session,
        url: str,
        adapter: str | None,
        prompt: Sequence[int],
        most: int,
    ) -> list[int] | str:
        body = {
            "model": self._model(adapter),
            "prompt": list(prompt),
            "max_tokens": most,
            "temperature": 0,
            "stop_token_ids": [self._end],
            "return_token_ids": True,
        }
        async with http.post(
            session, f"{url}/v1/completions", body, errors.of_response
        ) as response:
            said = _chunk(await http.read(response, http.MAX_WHOLE))
        if not said.choices:
            raise BackendUnavailable("the engine's answer holds no choice")
        choice = said.choices[0]
        if choice.token_ids is None:
            return choice.text
        return [id for id in choice.token_ids if id != self._end]

    def _model(self, adapter: str | None) -> str:
        if adapter is None:
            return self._base
        return f"{self._base}:{adapter}" if self._is_sglang else adapter


async def _tell(session: http.Session, url: str, body: object) -> None:
    with suppress(errors.AlreadyDone):
        async with http.post(session, url, body, errors.of_load) as response:
            await http.read(response, http.MAX_ERROR)


def _said(content: bytes) -> Completion:
    chunk = completion(content)
    if chunk.error is not None:
        raise errors.of_event(chunk.error)
    return chunk


def _chunk(content: bytes) -> _Completion:
    try:
        chunk = msgspec.json.decode(content, type=_Completion)
    except (ValueError, RecursionError) as error:
        raise BackendUnavailable("the engine's answer cannot be read") from error
    if chunk.error is not None:
        raise errors.of_event(chunk.error)
    return chunk


def _piece(choice: _Choice) -> Piece:
    rated = list(_rated(choice.logprobs))
    return Piece(choice.text, max(len(rated), 1), sum(rated) if rated else None)


def _rated(logprobs: _Logprobs | None) -> Iterator[float]:
    for logprob in logprobs.token_logprobs if logprobs else ():
        if logprob is not None and logprob > _MAX_LOGPROB_FLOOR:
            yield logprob


def _reason(said: str | None) -> FinishReason | None:
    if said == "abort":
        raise BackendUnavailable("the engine gave the request up")
    return None if said is None else "length" if said == "length" else "stop"


def _ended(reason: FinishReason, usage: Usage | None) -> End:
    return End(
        reason=reason,
        prompt_tokens=usage.prompt_tokens if usage else None,
        tokens=usage.completion_tokens if usage else None,
    )
