"""A stand-in for TGI 3.3 that is as strict and as odd as the real one, on a real socket.

It refuses with 422 what TGI refuses, answers an unknown adapter with the base model, loads nothing
at run time, forces its own output shape on tool calls, and streams as TGI does. Source: TGI's
router at db931fcf, and what was recorded of real servers. What it generates is a toy's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from tests.engines.standing import StandIn
from tests.engines.toy import NO_CALLS, Token, order

MAX_STOPS = 4
MAX_TOP = 5


class Refused(Exception):
    """A request that TGI does not take: status, error type, message."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message


# ---------------------------------------------------------------- shapes, as serde reads them

U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]


class Seeded(msgspec.Struct):
    seed: U64 | None = None

    def __post_init__(self) -> None:
        if (self.seed or 0) >= 2**64:
            raise ValueError("invalid value: expected u64")


class Grammar(msgspec.Struct):
    type: Literal["json", "json_object", "json_schema", "regex"]
    value: object


class Parameters(Seeded):
    best_of: U32 | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: U32 | None = None
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: U32 | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    top_n_tokens: U32 | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


class Generate(msgspec.Struct):
    inputs: str
    parameters: Parameters = msgspec.field(default_factory=Parameters)
    stream: bool = False


class Function(msgspec.Struct):
    name: str
    parameters: dict[str, object]
    description: str | None = None


class Tool(msgspec.Struct):
    type: str
    function: Function


class FunctionCall(msgspec.Struct):
    name: str
    arguments: object


class ToolCall(msgspec.Struct):
    id: str
    type: str
    function: FunctionCall


class TextPart(msgspec.Struct, tag="text"):
    text: str


class ImagePart(msgspec.Struct, tag="image_url"):
    image_url: dict[str, object]


class Message(msgspec.Struct):
    role: str
    content: str | list[TextPart | ImagePart] | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    name: str | None = None

    def __post_init__(self) -> None:
        if self.content is msgspec.UNSET and self.tool_calls is msgspec.UNSET:
            raise ValueError("data did not match any variant of untagged enum MessageBody")


class StreamOptions(msgspec.Struct):
    include_usage: bool


class Chat(Seeded):
    messages: list[Message] = msgspec.field(default_factory=list)
    model: str | None = None
    frequency_penalty: float | None = None
    logit_bias: list[float] | None = None
    logprobs: bool | None = None
    top_logprobs: U32 | None = None
    max_tokens: U32 | None = None
    n: U32 | None = None
    presence_penalty: float | None = None
    stop: list[str] | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Tool] | None = None
    tool_prompt: str | None = None
    tool_choice: object = None
    response_format: Grammar | None = None
    stream_options: StreamOptions | msgspec.UnsetType = msgspec.UNSET


def decoded(body: bytes, kind: type[Chat] | type[Generate]) -> Chat | Generate:
    try:
        fields = json.loads(body)
        if kind is Chat and {"max_tokens", "max_completion_tokens"} <= set(fields):
            raise msgspec.ValidationError("duplicate field `max_tokens`")
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        told = f"Failed to deserialize the JSON body into the target type: {error}"
        raise Refused(422, "", told) from error
    except ValueError as error:
        raise Refused(400, "", f"Failed to parse the request body as JSON: {error}") from error


# ---------------------------------------------------------------- validation, as the router does it


def invalid(message: str) -> Refused:
    return Refused(422, "validation", f"Input validation error: {message}")


def check_parameters(asked: Parameters) -> None:
    if asked.temperature is not None and asked.temperature <= 0:
        raise invalid("`temperature` must be strictly positive")
    if asked.top_p is not None and not 0 < asked.top_p < 1:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if asked.repetition_penalty is not None and asked.repetition_penalty <= 0:
        raise invalid("`repetition_penalty` must be strictly positive")
    if asked.frequency_penalty is not None and not -2 <= asked.frequency_penalty <= 2:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if asked.max_new_tokens == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    if len(asked.stop) > MAX_STOPS:
        raise invalid(f"`stop` supports up to 4 stop sequences. Given: {len(asked.stop)}")
    if asked.grammar is not None and asked.grammar.type != "regex":
        check_grammar(asked.grammar.value)


def check_grammar(value: object) -> None:
    if not isinstance(value, dict) or "properties" not in value:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    check_schema(value)


def check_schema(schema: object) -> None:
    """What the compiler of expressions takes, written down apart from the proxy's guard."""
    if not isinstance(schema, dict) or not schema:
        raise invalid("cannot compile regex from schema: unsupported JSON Schema structure")
    if "$ref" in schema:
        raise Refused(500, "died", "a reference killed the router")
    if isinstance(schema.get("type"), list):
        raise invalid("cannot compile regex from schema: 'type' must be a string")
    if not {"type", "anyOf", "oneOf", "allOf", "enum", "const", "properties"} & set(schema):
        raise invalid("cannot compile regex from schema: unsupported JSON Schema structure")
    for inner in (schema.get("properties") or {}).values():
        check_schema(inner)
    for inner in (*(schema.get("anyOf") or ()), *([schema["items"]] if "items" in schema else [])):
        check_schema(inner)


def check_chat(asked: Chat) -> None:
    if (asked.top_logprobs or 0) > MAX_TOP:
        raise invalid("`top_n_tokens` must be >= 0 and <= 5")
    penalty = None if asked.presence_penalty is None else asked.presence_penalty + 2.0
    check_parameters(
        Parameters(
            temperature=asked.temperature or None,
            top_p=asked.top_p,
            repetition_penalty=penalty,
            frequency_penalty=asked.frequency_penalty,
            max_new_tokens=asked.max_tokens,
            stop=asked.stop or [],
            grammar=asked.response_format,
        )
    )
    if asked.tools and asked.response_format:
        message = "Tool error: Grammar and tools are mutually exclusive"
        raise Refused(422, "tool_error", message)
    for tool in asked.tools or ():
        for inner in (tool.function.parameters.get("properties") or {}).values():
            check_schema(inner)


# ---------------------------------------------------------------- the server


@dataclass
class TgiStandIn(StandIn):
    """One TGI server. Its adapters are the toy's, for good."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/generate", self.generate),
            web.post("/generate_stream", self.generate_stream),
            web.post("/v1/chat/completions", self.chat),
            web.get("/health", self.health),
            web.get("/v1/models", self.models),
        ]

    async def models(self, request: web.Request) -> web.Response:
        base = {"id": "base", "object": "model", "created": 0, "owned_by": "base"}
        return web.json_response({"object": "list", "data": [base]})

    async def generate(self, request: web.Request) -> web.Response:
        try:
            asked = await self.accepted_generate(request)
        except Refused as refused:
            return self.refuse(refused)
        tokens, reason = self.generated(asked)
        details = {
            "finish_reason": reason,
            "generated_tokens": len(tokens),
            "seed": None,
            "prefill": [],
            "tokens": [token._asdict() for token in tokens],
        }
        text = "".join(token.text for token in tokens if not token.special)
        return web.json_response({"generated_text": text, "details": details})

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = await self.accepted_generate(request)
        except Refused as refused:
            return self.refuse(refused)
        tokens, reason = self.generated(asked)
        text = "".join(token.text for token in tokens if not token.special)
        async with self.streaming(request) as response:
            if self.is_full:
                # The head is out by then, so that the status says nothing.
                error = {"error": "Model is overloaded", "error_type": "overloaded"}
                await self.send(response, error)
                return response
            async for index, token in counted(self.paced(tokens, request)):
                last = index == len(tokens)
                details = {
                    "finish_reason": reason,
                    "generated_tokens": len(tokens),
                    "seed": None,
                    "input_length": len(self.prompts[-1]),
                }
                event = {
                    "index": index,
                    "token": token._asdict(),
                    "generated_text": text if last else None,
                    "details": details if last else None,
                }
                await self.send(response, event)
        return response

    async def accepted_generate(self, request: web.Request) -> Generate:
        body = await request.read()
        asked = decoded(body, Generate)
        assert isinstance(asked, Generate)
        check_parameters(asked.parameters)
        self.bodies.append(json.loads(body))
        # Special tokens of the tokenizer's own template are added, however the text begins.
        encoded = self.toy.tokenizer.encode(asked.inputs, add_special_tokens=True)
        self.prompts.append(encoded.ids)
        return asked

    def generated(self, asked: Generate) -> tuple[list[Token], str]:
        adapter = self.known(asked.parameters.adapter_id)
        answer = self.toy.answer(adapter, self.prompts[-1])
        return self.cut(answer, asked.parameters.max_new_tokens)

    def known(self, adapter: str | None) -> str | None:
        """An adapter that is not loaded is the base: no error, no header, no log."""
        return adapter if adapter in self.toy.adapters else None

    def cut(self, answer: str, most: int | None) -> tuple[list[Token], str]:
        tokens = list(self.toy.tokens(answer))
        if most is not None and len(tokens) > most:
            return tokens[:most], "length"
        return tokens, "eos_token"

    def refuse(self, refused: Refused) -> web.Response:
        self.refusals.append(refused.message)
        if not refused.error_type:
            return web.Response(status=refused.status, text=refused.message)
        error = {"error": refused.message, "error_type": refused.error_type}
        return web.json_response(error, status=refused.status)

    # ------------------------------------------------------------ chat

    async def chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
            asked = decoded(body, Chat)
            assert isinstance(asked, Chat)
            check_chat(asked)
        except Refused as refused:
            return self.refuse(refused)
        if self.is_full and not asked.stream:
            return self.refuse(Refused(429, "overloaded", "Model is overloaded"))
        self.bodies.append(json.loads(body))
        async with self.streaming(request) as response:
            if self.is_full:
                about = {"message": "Model is overloaded", "http_status_code": 422}
                await self.send(response, {"error": about})
            else:
                await self.chatted(asked, request, response)
            await response.write(b"data: [DONE]\n\n")
        return response

    async def chatted(self, asked: Chat, request: web.Request, to: web.StreamResponse) -> None:
        call = self.called(asked)
        prompt = self.toy.tokenizer.encode(msgspec.json.encode(asked.messages).decode()).ids
        if call is None:
            answer = self.spoken(asked, prompt)
            tokens, reason = self.cut(answer, asked.max_tokens)
        else:
            # The grammar's text; its frame is taken off before it is sent.
            tokens, reason = self.cut(json.dumps(call[1]), asked.max_tokens)
        async for index, token in counted(self.paced(tokens, request)):
            last = index == len(tokens)
            delta: Mapping[str, object] = {"role": "assistant", "content": ""}
            if call is not None and not token.special:
                delta = {"role": "assistant", "tool_calls": [fragment(call[0], token, index)]}
            elif not token.special:
                delta = {"role": "assistant", "content": token.text}
            finish = {"eos_token": "stop"}.get(reason, reason) if last and call is None else None
            if call is not None and token.special:
                continue
            await self.send(to, chunk(asked, [choice(delta, finish, token)], None))
        if asked.stream_options is not msgspec.UNSET and asked.stream_options.include_usage:
            await self.send(to, chunk(asked, [], (len(prompt), len(tokens))))

    def spoken(self, asked: Chat, prompt: Sequence[int]) -> str:
        said = order(last_text(asked))
        adapter = self.known(asked.model)
        if said is None:
            return self.toy.words(adapter, prompt)
        return said.say or NO_CALLS

    def called(self, asked: Chat) -> tuple[str, object] | None:
        """The one call that TGI can make, by an adapter that makes any."""
        said = order(last_text(asked))
        if not asked.tools or said is None or not said.calls or self.known(asked.model) is None:
            return None
        name, arguments = said.calls[0]
        return (name, arguments) if name in {tool.function.name for tool in asked.tools} else None


async def counted(tokens: AsyncIterator[Token]) -> AsyncIterator[tuple[int, Token]]:
    """The tokens with their numbers, from 1."""
    number = 0
    async for token in tokens:
        number += 1
        yield number, token


def last_text(asked: Chat) -> str:
    content = asked.messages[-1].content
    return content if isinstance(content, str) else ""


def fragment(name: str, token: Token, index: int) -> Mapping[str, object]:
    """A part of a call: id, type and a null name are repeated each time."""
    function = {"name": name if index == 1 else None, "arguments": token.text}
    return {"index": 0, "id": "0", "type": "function", "function": function}


def choice(delta: object, finish: str | None, token: Token) -> Mapping[str, object]:
    rated = {"token": token.text, "logprob": token.logprob, "top_logprobs": []}
    logprobs = {"content": [rated]}
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def chunk(
    asked: Chat, choices: Sequence[object], usage: tuple[int, int] | None
) -> Mapping[str, object]:
    counts = usage and {
        "prompt_tokens": usage[0],
        "completion_tokens": usage[1],
        "total_tokens": sum(usage),
    }
    return {
        "object": "chat.completion.chunk",
        "id": "",
        "created": 1,
        "model": asked.model,
        "system_fingerprint": "3.3.7-native",
        "choices": choices,
        "usage": counts or None,
    }
