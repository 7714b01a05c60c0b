"""A stand-in for vLLM 0.32 with LoRA, on a real socket: 404 for what it does not serve, adapters
loaded and unloaded at run time, OpenAI's shapes. What it generates is a toy's.

Written after vLLM's OpenAI server and a live one (tests/engines/test_vllm_live.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web

from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import Format, Parsed
from proxy.protocol.openai import FunctionCall, ToolCall
from tests.engines.standing import StandIn
from tests.engines.toy import NO_CALLS, Token, order

BASE = "base"
MAX_MODEL_LEN = 8192
KNOWN_CONSTRAINTS = {"json", "regex", "choice", "grammar", "json_object", "structural_tag"}


class Refused(Exception):
    """A request that vLLM does not take."""

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Asked(msgspec.Struct):
    """What completions and chat completions have in common."""

    model: str
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    structured_outputs: dict[str, object] | None = None
    cache_salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$")] | None = None


class Completion(Asked):
    prompt: list[int] | str = ""
    logprobs: int | None = None
    stop_token_ids: list[int] = []
    return_token_ids: bool = False


class Function(msgspec.Struct):
    name: str
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    type: str
    function: Function


class Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, object]] | None = None
    tool_calls: list[dict[str, object]] | None = None


class Chat(Asked):
    messages: list[Message] = []
    tools: list[Tool] | None = None
    tool_choice: object = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None


class LoadAdapter(msgspec.Struct):
    lora_name: str
    lora_path: str


class UnloadAdapter(msgspec.Struct):
    lora_name: str


@dataclass
class VllmStandIn(StandIn):
    """One vLLM server; the toy's adapters are those that are loaded now."""

    loads: list[str] = field(default_factory=list)
    """Paths that were loaded."""
    parser: Format = FORMATS["hermes"]
    """`--tool-call-parser` of chat mode."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/completions", self.complete),
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/load_lora_adapter", self.load),
            web.post("/v1/unload_lora_adapter", self.unload),
            web.get("/v1/models", self.models),
            web.get("/health", self.health),
        ]

    async def models(self, request: web.Request) -> web.Response:
        base = {"id": BASE, "object": "model", "root": BASE, "parent": None}
        adapters = [{"id": id, "object": "model", "parent": BASE} for id in self.toy.adapters]
        return web.json_response({"object": "list", "data": [base, *adapters]})

    async def load(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=LoadAdapter)
        manifest = Path(asked.lora_path) / "manifest.json"
        if asked.lora_name in self.toy.adapters:
            message = f"The lora adapter '{asked.lora_name}' has already been loaded."
            self.refusals.append(message)
            return refusal(Refused(400, "InvalidUserInput", message))
        if not manifest.exists():
            message = f"Loading lora {asked.lora_name} failed: No adapter found"
            return refusal(Refused(404, "NotFoundError", message))
        format = msgspec.json.decode(manifest.read_bytes(), type=dict[str, object])["format"]
        self.toy.adapters[asked.lora_name] = FORMATS[str(format)]
        self.loads.append(asked.lora_path)
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=UnloadAdapter)
        if asked.lora_name not in self.toy.adapters:
            message = f"The lora adapter '{asked.lora_name}' cannot be found."
            return refusal(Refused(404, "NotFoundError", message))
        del self.toy.adapters[asked.lora_name]
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    # ------------------------------------------------------------ completions

    async def complete(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = await self.accepted(request, Completion)
            ids = self.ids(asked)
        except Refused as refused:
            self.refusals.append(str(refused))
            return refusal(refused)
        self.prompts.append(ids)
        tokens, reason = self.cut(self.toy.answer(self.adapter(asked), ids), asked.max_tokens)
        if not asked.stream:
            return web.json_response(self.whole(asked, ids, tokens, reason))
        async with self.streaming(request) as response:
            async for token in self.paced(tokens, request):
                text = "" if token.special else token.text
                finish = reason if token is tokens[-1] else None
                logprobs = None
                if asked.logprobs is not None:
                    logprobs = {"token_logprobs": [token.logprob], "tokens": [token.text]}
                choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
                await self.send(response, event(asked, "text_completion", [choice], None))
            await self.close(asked, "text_completion", response, len(ids), len(tokens))
        return response

    def ids(self, asked: Completion) -> list[int]:
        prompt = asked.prompt
        ids = prompt if isinstance(prompt, list) else self.toy.tokenizer.encode(prompt).ids
        if not ids or max(ids) >= self.toy.tokenizer.get_vocab_size():
            raise Refused(400, "BadRequestError", "Token id is out of vocabulary")
        if len(ids) + (asked.max_tokens or 16) > MAX_MODEL_LEN:
            message = f"This model's maximum context length is {MAX_MODEL_LEN} tokens."
            raise Refused(400, "BadRequestError", message)
        return ids

    def whole(
        self, asked: Completion, ids: Sequence[int], tokens: Sequence[Token], reason: str
    ) -> Mapping[str, object]:
        text = "".join(token.text for token in tokens if not token.special)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        if asked.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return event(asked, "text_completion", [choice], usage(len(ids), len(tokens)))

    # ------------------------------------------------------------ chat

    async def chat(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = await self.accepted(request, Chat)
        except Refused as refused:
            self.refusals.append(str(refused))
            return refusal(refused)
        prompt = self.toy.tokenizer.encode(msgspec.json.encode(asked.messages).decode()).ids
        tokens, reason = self.cut(self.spoken(asked, prompt), asked.max_tokens)
        async with self.streaming(request) as response:
            await self.send(response, chunk(asked, {"role": "assistant", "content": ""}, None))
            text = ""
            async for token in self.paced(tokens, request):
                text += "" if token.special else token.text
                if not self.calls(text):
                    delta = {"content": "" if token.special else token.text}
                    await self.send(response, chunk(asked, delta, token))
            parsed = self.parser.parse(text) if self.calls(text) else Parsed(text)
            cut = [ToolCall("", FunctionCall("cut", parsed.broken))] if parsed.broken else []
            for delta in deltas([*parsed.calls, *cut]):
                await self.send(response, chunk(asked, delta, None))
            finish = "tool_calls" if parsed.calls else reason
            await self.send(response, chunk(asked, {"content": ""}, None, finish))
            await self.close(asked, "chat.completion.chunk", response, len(prompt), len(tokens))
        return response

    def calls(self, text: str) -> bool:
        """Whether a text is, or may become, a call."""
        return text.startswith(self.parser.opening) or self.parser.opening.startswith(text)

    def spoken(self, asked: Chat, prompt: Sequence[int]) -> str:
        last = asked.messages[-1].content
        said = order(last if isinstance(last, str) else "")
        adapter = self.adapter(asked)
        if said is None:
            return self.toy.words(adapter, prompt)
        if not said.calls:
            return said.say
        if adapter is None or not asked.tools:
            return NO_CALLS
        return self.parser.answer(
            [FunctionCall(name, json.dumps(arguments)) for name, arguments in said.calls]
        )

    # ------------------------------------------------------------ both

    async def accepted(self, request: web.Request, kind: type[Asked]) -> Asked:
        body = await request.read()
        try:
            asked = msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            raise Refused(400, "BadRequestError", str(error)) from error
        if asked.model != BASE and asked.model not in self.toy.adapters:
            message = f"The model `{asked.model}` does not exist."
            raise Refused(404, "NotFoundError", message)
        check_constraint(asked.structured_outputs)
        self.bodies.append(json.loads(body))
        return asked

    def adapter(self, asked: Asked) -> str | None:
        return None if asked.model == BASE else asked.model

    def cut(self, answer: str, most: int | None) -> tuple[list[Token], str]:
        tokens = list(self.toy.tokens(answer))
        limit = 16 if most is None else most
        return (tokens, "stop") if len(tokens) <= limit else (tokens[:limit], "length")

    async def close(
        self, asked: Asked, kind: str, response: web.StreamResponse, prompt: int, said: int
    ) -> None:
        if asked.stream_options is not None and asked.stream_options.include_usage:
            await self.send(response, event(asked, kind, [], usage(prompt, said)))
        await response.write(b"data: [DONE]\n\n")


def check_constraint(asked: Mapping[str, object] | None) -> None:
    if asked is None:
        return
    if len(asked) != 1 or not set(asked) <= KNOWN_CONSTRAINTS:
        message = "You can only use one kind of structured outputs constraint"
        raise Refused(400, "BadRequestError", message)
    if "structural_tag" in asked:
        tag = json.loads(str(asked["structural_tag"]))
        if tag["type"] != "structural_tag" or not tag["format"]["tags"]:
            raise Refused(400, "BadRequestError", "Invalid structural tag specification")


def deltas(calls: Sequence[ToolCall]) -> Iterator[Mapping[str, object]]:
    """The name and id of each call, then its arguments."""
    for index, call in enumerate(calls):
        function = call.function
        first = {"index": index, "id": f"chatcmpl-tool-{index}", "type": "function"}
        yield {"tool_calls": [first | {"function": {"name": function.name, "arguments": ""}}]}
        for at in range(0, len(function.arguments), 5):
            part = {"arguments": function.arguments[at : at + 5]}
            yield {"tool_calls": [{"index": index, "function": part}]}


def refusal(refused: Refused) -> web.Response:
    about = {"message": str(refused), "type": refused.type, "param": None, "code": refused.status}
    return web.json_response({"error": about}, status=refused.status)


def usage(prompt: int, said: int) -> Mapping[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}


def chunk(
    asked: Asked, delta: object, token: Token | None, finish: str | None = None
) -> Mapping[str, object]:
    rated = token and {"content": [{"token": token.text, "logprob": token.logprob}]}
    choice = {"index": 0, "delta": delta, "logprobs": rated, "finish_reason": finish}
    return event(asked, "chat.completion.chunk", [choice], None)


def event(
    asked: Asked, kind: str, choices: Sequence[object], usage: object
) -> Mapping[str, object]:
    return {
        "id": "cmpl-1",
        "object": kind,
        "created": 1,
        "model": asked.model,
        "choices": choices,
        "usage": usage,
    }
