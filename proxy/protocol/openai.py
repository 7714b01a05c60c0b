"""The part of the OpenAI API that Headrace reads and writes.

Source: OpenAI API reference, chat completions. Only fields that we decide on are typed; the bytes
of a request are kept beside the parsed form, so that a cloud backend receives what the client
sent, unknown fields included.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

import msgspec

from proxy.protocol import strict_json, tools_in

MAX_COUNT = 2**31 - 1
"""What every engine's integers can hold."""
MAX_STOPS = 64
"""Stop strings of a request: each piece of an answer is searched for all. OpenAI takes 4."""
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool", "function"]


_NO_PARAMETERS = msgspec.Raw(b'{"type":"object","properties":{},"additionalProperties":false}')


class MalformedRequest(ValueError):
    """The body is no chat request. `param` is the path of the offending field, if known."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


# ---------------------------------------------------------------- what a client sends


class Function(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the model may call; `parameters` is its JSON Schema, kept as bytes."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"")
    strict: bool | None = None

    @property
    def schema(self) -> msgspec.Raw:
        """The schema of the arguments; a function without one takes none."""
        given = bytes(self.parameters)
        return self.parameters if given not in (b"", b"null") else _NO_PARAMETERS


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """An offered tool. Custom (free-form) tools have no `function` and no schema."""

    type: str
    function: Function | None = None
    custom: msgspec.Raw = msgspec.Raw(b"")

    def __post_init__(self) -> None:
        if self.type == "function" and self.function is None:
            raise ValueError("a tool of type 'function' needs a 'function'")


class FunctionCall(msgspec.Struct, frozen=True):
    """A function's name and its arguments, a JSON text as on the wire."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True):
    """One call that a model asks for."""

    id: str
    function: FunctionCall
    type: str = "function"


class PastCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call in the history of a conversation; one of a custom tool has no `function`."""

    id: str
    type: str = "function"
    function: FunctionCall | None = None
    custom: msgspec.Raw = msgspec.Raw(b"")

    def __post_init__(self) -> None:
        if self.type == "function" and self.function is None:
            raise ValueError("a call of type 'function' needs a 'function'")


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of a message's content; only text parts are read here."""

    type: str
    text: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation."""

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    audio: msgspec.Raw = msgspec.Raw(b"")

    @property
    def text(self) -> str:
        """The text of the content, its text parts joined; "" where there is none."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def is_plain_text(self) -> bool:
        """False for images, audio, files and calls of custom tools: no local model reads them."""
        parts = self.content if isinstance(self.content, list) else ()
        calls = self.tool_calls or ()
        if bytes(self.audio) not in (b"", b"null"):
            return False
        return all(p.type == "text" for p in parts) and all(c.function for c in calls)


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class NamedFunction(msgspec.Struct, frozen=True):
    name: str


class NamedChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """`tool_choice` as an object: one named tool, or a set of allowed ones."""

    type: str
    function: NamedFunction | None = None
    custom: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None

    @property
    def is_required(self) -> bool:
        """Whether an answer without a call breaks the request."""
        return self.allowed_tools is None or self.allowed_tools.mode == "required"


class AllowedTools(msgspec.Struct, frozen=True):
    """The tools among which the model may choose, each as a NamedChoice would name it."""

    mode: Literal["auto", "required"]
    tools: list[NamedChoice]


class JsonSchema(msgspec.Struct, frozen=True):
    name: str = "answer"
    schema: msgspec.Raw = msgspec.Raw(b"{}")
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    json_schema: JsonSchema | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion request; fields that only a cloud reads are left in the raw body."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    functions: list[Function] | None = None
    """What came before `tools`; see protocol.legacy."""
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"")
    store: bool | None = None
    user: str | None = None
    unread: tuple[str, ...] = msgspec.field(default=(), name=" unread")
    """Names of what the body asks beside the fields above and WITHOUT_EFFECT. Made by
    `parse_request`, and overwritten there should anybody send it."""
    tools_json: bytes = msgspec.field(default=b"", name=" tools_json")
    """The tools as they came, where `parse_request` remembers them: what is found out about them
    need not be found out again. Made there too."""

    @property
    def is_legacy(self) -> bool:
        """Whether the answer's call goes into `function_call`, as before there were tools."""
        return bool(self.functions)

    @property
    def offered(self) -> list[Function]:
        """The functions that this request offers, in order; custom tools are left out."""
        return [tool.function for tool in self.tools or () if tool.function is not None]

    @property
    def stops(self) -> list[str]:
        """The stop strings, as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that reports usage."""
        return self.stream_options is not None and self.stream_options.include_usage


WITHOUT_EFFECT = frozenset({
    "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "reasoning_effort", "safety_identifier", "service_tier", "verbosity",
})  # fmt: skip
"""Fields that say how an answer is come by, or for whom, and not what it must hold: a local engine
may answer without them."""

_AT = re.compile(r"^(?P<what>.*) - at `(?P<path>[^`]+)`$", re.DOTALL)
_decoder = msgspec.json.Decoder(ChatRequest)
_SHORT_TOOLS = 64 * 1024
"""Bytes of tools of which 256 lists are remembered, 16 of longer ones: 16 MiB of each."""
_MADE_HERE = frozenset((" unread", " tools_json"))
_known = WITHOUT_EFFECT | set(ChatRequest.__struct_encode_fields__)


def parse_request(body: bytes) -> ChatRequest:
    """The request in `body`; raises MalformedRequest, with the field's path where one is known.

    Clients send the same tools again and again: those are read once, and remembered.
    """
    tools = tools_in.find(body)
    if tools is None:
        return _parsed(body)
    is_short = len(tools.json) <= _SHORT_TOOLS
    known = _read_short(tools.json) if is_short else _read_long(tools.json)
    if known is None:
        return _parsed(body)
    try:
        # Cut out, there is little left to read. What is wrong there is told of the whole body.
        request = _parsed(tools.cut(body))
    except MalformedRequest:
        return _parsed(body)
    remembered = tools.json if is_short else b""
    return msgspec.structs.replace(request, tools=known, tools_json=remembered)


def _read_tools(tools: bytes) -> list[Tool] | None:
    """What tools say, which is remembered; None for what is wrong in some way."""
    try:
        strict_json.loads(tools)
        return msgspec.json.decode(tools, type=list[Tool])
    except (ValueError, RecursionError):
        return None


_read_short, _read_long = lru_cache(maxsize=256)(_read_tools), lru_cache(maxsize=16)(_read_tools)


def _parsed(body: bytes) -> ChatRequest:
    fields = parse_object(body)
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise malformed(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is not valid JSON: {error}") from None
    unread = [name for name, value in fields.items() if name not in _known and value]
    if fields.get("modalities") == ["text"]:
        unread.remove("modalities")
    if unread or _MADE_HERE & fields.keys():
        return msgspec.structs.replace(request, unread=tuple(unread), tools_json=b"")
    return request


def parse_object(body: bytes) -> dict[str, strict_json.Json]:
    """The JSON object in `body`; raises MalformedRequest."""
    try:
        value = strict_json.loads(body)
    except strict_json.NotStrict as error:
        raise MalformedRequest(str(error), error.path) from None
    if not isinstance(value, dict):
        raise MalformedRequest("the body must be a JSON object")
    return value


def malformed(error: msgspec.ValidationError) -> MalformedRequest:
    """msgspec's complaint as ours: the place in words, and as `param`."""
    found = _AT.match(str(error))
    if found is None:
        return MalformedRequest(str(error))
    return MalformedRequest(f"{found['what']} (at {found['path']})", found["path"])


# ---------------------------------------------------------------- what a client gets


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a prompt and of its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        return cls(prompt, completion, prompt + completion)


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The assistant's message of a completion; without calls, the fields for them are absent."""

    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    function_call: FunctionCall | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, as in a response without streaming."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    choices: list[Choice]
    usage: Usage
    object: str = "chat.completion"


class CallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a tool call. Id, type and name come once; clients concatenate what is repeated."""

    index: int
    function: FunctionDelta
    id: str | msgspec.UnsetType = msgspec.UNSET
    type: str | msgspec.UnsetType = msgspec.UNSET


class FunctionDelta(msgspec.Struct, frozen=True, kw_only=True):
    arguments: str
    name: str | msgspec.UnsetType = msgspec.UNSET


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    role: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    tool_calls: list[CallDelta] | msgspec.UnsetType = msgspec.UNSET
    function_call: FunctionDelta | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a streamed answer."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    object: str = "chat.completion.chunk"
