"""A response as /v1/responses gives it, made of a completion."""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from proxy.protocol import loose
from proxy.protocol.openai import Usage
from proxy.protocol.responses.request import (
    FunctionTool,
    NamedTool,
    ResponseRequest,
    TextFormat,
    TextSettings,
)

PREFIX = "resp_headrace_"
"""Begins the ids of responses that were answered as chats, and are therefore not stored."""

Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class OutputText(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    type: str = "output_text"
    annotations: list[str] = []
    logprobs: list[str] = []


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    refusal: str
    type: str = "refusal"


Part: TypeAlias = OutputText | Refusal


class OutputMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the assistant said."""

    id: str
    content: list[OutputText | Refusal]
    status: Status
    type: str = "message"
    role: str = "assistant"


class OutputCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the assistant calls; results name its `call_id`."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status
    type: str = "function_call"


Output: TypeAlias = OutputMessage | OutputCall


class InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens_details: OutputDetails = OutputDetails()


class EchoedTool(msgspec.Struct, frozen=True, kw_only=True):
    """An offered function, all of its keys there."""

    name: str
    description: str | None
    parameters: msgspec.Raw
    strict: bool | None
    type: str = "function"


class IncompleteDetails(msgspec.Struct, frozen=True):
    reason: Literal["max_output_tokens", "content_filter"]


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response, with what was asked for repeated in it, as OpenAI's has it."""

    id: str
    created_at: int
    """Seconds since the epoch."""
    model: str
    status: Status
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    reasoning: msgspec.Raw
    temperature: float
    text: TextSettings
    tool_choice: str | NamedTool
    tools: list[EchoedTool]
    top_p: float
    usage: ResponseUsage | msgspec.UnsetType = msgspec.UNSET
    user: str | msgspec.UnsetType = msgspec.UNSET
    object: str = "response"
    background: bool = False
    completed_at: int | None = None
    error: None = None
    incomplete_details: IncompleteDetails | None = None
    previous_response_id: None = None
    service_tier: str = "default"
    store: bool = False
    truncation: str = "disabled"


def opened(request: ResponseRequest, completion_id: str, created_at: int) -> Response:
    """The response to a request before anything of it is there."""
    text = request.text or TextSettings()
    return Response(
        id=PREFIX + completion_id.removeprefix("chatcmpl-"),
        created_at=created_at,
        model=request.model,
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        output=[],
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning=request.reasoning,
        temperature=1.0 if request.temperature is None else request.temperature,
        text=replace(text, format=text.format or TextFormat("text")),
        tool_choice=request.tool_choice or "auto",
        tools=[_echoed(tool) for tool in request.tools or ()],
        top_p=1.0 if request.top_p is None else request.top_p,
        user=msgspec.UNSET if request.user is None else request.user,
    )


def closed(
    response: Response, output: list[Output], finish_reason: str, usage: Usage | None
) -> Response:
    """The same response with all that came; `finish_reason` is the completion's."""
    reason = _INCOMPLETE.get(finish_reason)
    return replace(
        response,
        status="completed" if reason is None else "incomplete",
        completed_at=int(time.time()) if reason is None else None,
        incomplete_details=reason,
        output=output,
        usage=msgspec.UNSET if usage is None else _usage(usage),
    )


def whole(request: ResponseRequest, completion: loose.Piece) -> Response:
    """The response that a completion makes; raises ValueError for one that is not whole."""
    choice = next((c for c in completion.choices or () if c.index == 0), None)
    if choice is None or choice.message is None or choice.finish_reason is None:
        raise ValueError("the completion has no finished choice")
    created = int(time.time()) if completion.created is None else completion.created
    response = opened(request, completion.id or "", created)
    status = status_of(choice.finish_reason)
    messages = _messages(response, choice.message, status)
    output: list[Output] = [*messages, *_calls(response, choice.message, len(messages))]
    return closed(response, output, choice.finish_reason, completion.usage)


def status_of(finish_reason: str) -> Status:
    """The status of what an answer that ended so said last."""
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def item_id(response: Response, kind: Literal["msg", "fc"], index: int) -> str:
    """The id of an output item, unique as the response's is."""
    return f"{kind}_{response.id.removeprefix(PREFIX)}_{index}"


def _messages(response: Response, said: loose.Delta, status: Status) -> list[OutputMessage]:
    """The one message, or none where there are calls only."""
    parts: list[OutputText | Refusal] = []
    if said.content or not (said.refusal or said.tool_calls):
        parts.append(OutputText(text=said.content or ""))
    if said.refusal:
        parts.append(Refusal(refusal=said.refusal))
    id = item_id(response, "msg", 0)
    return [OutputMessage(id=id, content=parts, status=status)] if parts else []


def _calls(response: Response, said: loose.Delta, start: int) -> list[OutputCall]:
    return [
        OutputCall(
            id=item_id(response, "fc", index),
            call_id=call.id or "",
            name=(call.function and call.function.name) or "",
            arguments=(call.function and call.function.arguments) or "{}",
            status="completed",
        )
        for index, call in enumerate(said.tool_calls or (), start)
    ]


def _echoed(tool: FunctionTool) -> EchoedTool:
    return EchoedTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        strict=tool.strict,
    )


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )


_INCOMPLETE: dict[str, IncompleteDetails] = {
    "length": IncompleteDetails("max_output_tokens"),
    "content_filter": IncompleteDetails("content_filter"),
}
