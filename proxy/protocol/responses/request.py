"""What a client asks of /v1/responses, as a chat request where there is one that asks the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from proxy.protocol.openai import (
    MAX_COUNT,
    Function,
    FunctionCall,
    JsonSchema,
    MalformedRequest,
    Message,
    NamedChoice,
    NamedFunction,
    Part,
    PastCall,
    ResponseFormat,
    Role,
    StreamOptions,
    Tool,
    malformed,
)
from proxy.protocol.strict_json import Json


class Content(msgspec.Struct, frozen=True):
    """One part of an item's content; only text is read here."""

    type: str
    text: str = ""
    refusal: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A message, a call, or what came of one. Which fields there are depends on `type`."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Content] | None = None


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """An offered function, flat where a chat's is nested."""

    type: str
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


class NamedTool(msgspec.Struct, frozen=True):
    """`tool_choice` as an object."""

    type: str
    name: str


class TextFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    schema: msgspec.Raw = msgspec.Raw(b"")
    strict: bool | None = None


class TextSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a response that a chat can give."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    text: TextSettings | None = None
    metadata: dict[str, str] | None = None
    reasoning: msgspec.Raw = msgspec.Raw(b"null")
    user: str | None = None


# ---------------------------------------------------------------- what a chat has no word for

_WITHOUT_EFFECT = frozenset({
    "include", "max_tool_calls", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream_options",
    "truncation",
})  # fmt: skip
"""Fields that a chat may be answered without, unless `beyond_chat` says otherwise."""
_known = _WITHOUT_EFFECT | set(ResponseRequest.__struct_fields__)
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")


def beyond_chat(fields: Mapping[str, Json]) -> str | None:
    """The first field of a request that no chat request can stand for; None when one can.

    A response is stored unless `store` is false, says OpenAI; who does not say true is taken to do
    without, as a response that is answered here is not kept.
    """
    for name, is_beyond in _beyond(fields):
        if is_beyond:
            return name if _WORD.fullmatch(name) else "field"
    return None


def _beyond(fields: Mapping[str, Json]) -> Iterator[tuple[str, bool]]:
    for name, value in fields.items():
        # Known to OpenAI or not, such a field asks for something: previous_response_id, background.
        yield name, name not in _known and bool(value)
    yield "store", fields.get("store") is True
    yield "truncation", fields.get("truncation") == "auto"
    yield "include", any("logprobs" in str(one) for one in _list(fields.get("include")))
    yield "tools", any(_type(tool) != "function" for tool in _list(fields.get("tools")))
    choice = fields.get("tool_choice")
    yield "tool_choice", isinstance(choice, dict) and choice.get("type") != "function"
    yield "input", not all(map(_is_told_in_chat, _list(fields.get("input"))))


def _is_told_in_chat(item: Json) -> bool:
    if not isinstance(item, dict):
        return True
    match item.get("type", "message"):
        case "message":
            return all(_type(part) in _TEXTS for part in _list(item.get("content")))
        case "function_call_output":
            return all(_type(part) in _TEXTS for part in _list(item.get("output")))
        case "function_call" | "reasoning":
            return True
        case _:
            return False


_TEXTS = ("input_text", "output_text", "text", "refusal")


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _type(value: Json) -> Json:
    return value.get("type") if isinstance(value, dict) else None


# ---------------------------------------------------------------- translated


class ChatBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a chat request, with nothing in it that was not asked for."""

    model: str
    messages: list[Message]
    tools: list[Tool] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(ResponseRequest)


def parse(body: bytes) -> ResponseRequest:
    """The request in `body`, strict JSON and not `beyond_chat`; raises MalformedRequest."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise malformed(error) from None


def to_chat(request: ResponseRequest) -> bytes:
    """The body of the chat request that asks the same; raises MalformedRequest."""
    chat = ChatBody(
        model=request.model,
        messages=list(_messages(request)),
        tools=[_tool(tool) for tool in request.tools or ()] or None,
        tool_choice=_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls,
        stream=request.stream,
        # The response's last event reports usage, always.
        stream_options=StreamOptions(include_usage=True) if request.stream else None,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        response_format=_format(request.text),
        user=request.user,
    )
    return msgspec.json.encode(chat)


_PATHS = (
    (re.compile(r"\$\.tools\[(\d+)\]\.function\b"), r"$.tools[\1]"),
    (re.compile(r"\$\.response_format\.json_schema\b"), "$.text.format"),
    (re.compile(r"\$\.messages\b[^ )]*"), "$.input"),
)


def in_the_client_s_words(text: str) -> str:
    """The text with a chat request's paths as those of the response's request."""
    for path, stands_for in _PATHS:
        text = path.sub(stands_for, text)
    return text


def _messages(request: ResponseRequest) -> Iterator[Message]:
    if request.instructions:
        yield Message(role="system", content=request.instructions)
    if isinstance(request.input, str):
        yield Message(role="user", content=request.input)
        return
    said: Message | None = None
    for index, item in enumerate(request.input):
        match item.type:
            case "function_call":
                # What the assistant said and called in one turn is one message in a chat.
                said = said or Message(role="assistant")
                calls = [*(said.tool_calls or ()), _call(item, index)]
                said = msgspec.structs.replace(said, tool_calls=calls)
                continue
            case "reasoning":
                # A cloud's own notes, which nobody else can read.
                continue
        if said is not None:
            yield said
        said = None
        message = _message(item, index)
        if message.role == "assistant":
            said = message
        else:
            yield message
    if said is not None:
        yield said


def _message(item: Item, index: int) -> Message:
    if item.type == "function_call_output":
        if item.call_id is None or item.output is None:
            raise _incomplete(item, index, "`call_id` and `output`")
        return Message(role="tool", tool_call_id=item.call_id, content=_text(item.output))
    if item.role is None or item.content is None:
        raise _incomplete(item, index, "`role` and `content`")
    return Message(role=_ROLES[item.role], content=_text(item.content))


_ROLES: Mapping[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
}


def _call(item: Item, index: int) -> PastCall:
    if item.call_id is None or item.name is None or item.arguments is None:
        raise _incomplete(item, index, "`call_id`, `name` and `arguments`")
    return PastCall(item.call_id, function=FunctionCall(item.name, item.arguments))


def _incomplete(item: Item, index: int, wanted: str) -> MalformedRequest:
    path = f"$.input[{index}]"
    return MalformedRequest(f"an item of type {item.type!r} needs {wanted} (at {path})", path)


def _text(content: str | Iterable[Content]) -> str | list[Part]:
    if isinstance(content, str):
        return content
    return [Part("text", part.text or part.refusal) for part in content]


def _tool(tool: FunctionTool) -> Tool:
    function = Function(tool.name, tool.description, tool.parameters, tool.strict)
    return Tool("function", function)


def _choice(choice: str | NamedTool | None) -> str | NamedChoice | None:
    if isinstance(choice, NamedTool):
        return NamedChoice("function", NamedFunction(choice.name))
    return choice


def _format(text: TextSettings | None) -> ResponseFormat | None:
    if text is None or text.format is None or text.format.type == "text":
        return None
    asked = text.format
    if asked.type != "json_schema":
        return ResponseFormat(asked.type)
    if not bytes(asked.schema):
        path = "$.text.format.schema"
        raise MalformedRequest(f"a schema is missing (at {path})", path)
    return ResponseFormat(
        "json_schema", JsonSchema(asked.name or "answer", asked.schema, asked.strict)
    )
