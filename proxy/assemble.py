"""A local answer's events, put into OpenAI's form: one completion, or a stream of chunks.

The law: a client that assembles the stream holds what the completion says. So that every client
can, chunks are canonical: the role once, in the first delta; a call's id, type and name once, in
its first delta, its arguments in the next; no key that is null without need. The answer's
`finish_reason` is `tool_calls` exactly when calls were sent. A legacy request, which offered
`functions`, has its one call in `function_call`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable

import msgspec

from proxy import sse
from proxy.backends.base import Call, Event, Finish, Text
from proxy.errors import BackendUnavailable
from proxy.ids import new_id
from proxy.protocol.openai import (
    AnswerMessage,
    CallDelta,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    FinishReason,
    FunctionCall,
    FunctionDelta,
    ToolCall,
    Usage,
)

DONE = sse.encode(sse.DONE)
"""The bytes that end a stream."""


class Head(msgspec.Struct, frozen=True):
    """What all chunks of an answer, or its completion, begin with."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    is_legacy: bool = False
    """Whether the client knows `function_call` and no `tool_calls`."""


def new_head(request: ChatRequest) -> Head:
    """A head for an answer that begins now."""
    id = f"chatcmpl-{new_id()}"
    return Head(id, int(time.time()), request.model, request.is_legacy)


# ---------------------------------------------------------------- whole


def completion(head: Head, events: Iterable[Event]) -> Completion:
    """The completion that these events make; raises BackendUnavailable when no Finish is there."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    for event in events:
        match event:
            case Text(text):
                texts.append(text)
            case Call(call):
                calls.append(_canonical(call))
            case Finish():
                return _completion(head, "".join(texts), calls, event)
    raise _unfinished()


async def complete(head: Head, events: AsyncIterator[Event]) -> Completion:
    """As `completion`, for an answer that is still coming."""
    return completion(head, [event async for event in events])


def _completion(head: Head, text: str, calls: list[ToolCall], finish: Finish) -> Completion:
    content = None if calls and not text else text
    if head.is_legacy and calls:
        message = AnswerMessage(content=content, function_call=calls[0].function)
    else:
        message = AnswerMessage(content=content, tool_calls=calls or msgspec.UNSET)
    reason = _finish_reason(finish.reason, bool(calls), head.is_legacy)
    choice = Choice(index=0, message=message, finish_reason=reason)
    return Completion(
        id=head.id, created=head.created, model=head.model, choices=[choice], usage=finish.usage
    )


# ---------------------------------------------------------------- streamed


async def stream(
    head: Head, events: AsyncIterator[Event], include_usage: bool = False
) -> AsyncIterator[bytes]:
    """The answer as server-sent events, `[DONE]` included, as its events come.

    Raises BackendUnavailable when the events end without a Finish: there is no `[DONE]` then.
    """
    chunks = Chunks(head, include_usage)
    async for event in events:
        if wire := chunks.encode(event):
            yield wire
    if not chunks.finished:
        raise _unfinished()


class Chunks:
    """Turns the events of one answer into its chunks, one event at a time."""

    def __init__(self, head: Head, include_usage: bool = False) -> None:
        self.finished = False
        """Whether the end has been given; nothing comes after it."""
        self._head = head
        self._include_usage = include_usage
        self._begun = False
        self._calls = 0

    def encode(self, event: Event) -> bytes:
        """The event's chunks as server-sent events; for Finish, `[DONE]` too. May be empty."""
        wire = b"".join(sse.encode(_encoder.encode(chunk)) for chunk in self.of(event))
        return wire + DONE if isinstance(event, Finish) else wire

    def of(self, event: Event) -> list[Chunk]:
        """The event's chunks; none for an empty text."""
        match event:
            case Text(text):
                return self._text(text)
            case Call(call):
                return self._call(_canonical(call))
            case Finish():
                return self._finish(event)

    def _text(self, text: str) -> list[Chunk]:
        return [self._chunk(Delta(role=self._role(), content=text))] if text else []

    def _call(self, call: ToolCall) -> list[Chunk]:
        index, function = self._calls, call.function
        self._calls += 1
        named = FunctionDelta(name=function.name, arguments="")
        opening = CallDelta(index=index, id=call.id, type=call.type, function=named)
        rest = CallDelta(index=index, function=FunctionDelta(arguments=function.arguments))
        # The first delta of an answer without text says so, as OpenAI's does.
        content = msgspec.UNSET if self._begun else None
        if self._head.is_legacy:
            opened = Delta(role=self._role(), content=content, function_call=named)
            return [self._chunk(opened), self._chunk(Delta(function_call=rest.function))]
        first = Delta(role=self._role(), content=content, tool_calls=[opening])
        return [self._chunk(first), self._chunk(Delta(tool_calls=[rest]))]

    def _finish(self, finish: Finish) -> list[Chunk]:
        self.finished = True
        opening = [] if self._begun else [self._chunk(Delta(role=self._role(), content=""))]
        reason = _finish_reason(finish.reason, self._calls > 0, self._head.is_legacy)
        usage = [self._usage(finish.usage)] if self._include_usage else []
        return [*opening, self._chunk(Delta(), reason), *usage]

    def _role(self) -> str | msgspec.UnsetType:
        """The role for the first delta, nothing for all others."""
        role = msgspec.UNSET if self._begun else "assistant"
        self._begun = True
        return role

    def _chunk(self, delta: Delta, reason: FinishReason | None = None) -> Chunk:
        choice = ChunkChoice(index=0, delta=delta, finish_reason=reason)
        usage = None if self._include_usage else msgspec.UNSET
        return self._with_head([choice], usage)

    def _usage(self, usage: Usage) -> Chunk:
        return self._with_head([], usage)

    def _with_head(
        self, choices: list[ChunkChoice], usage: Usage | msgspec.UnsetType | None
    ) -> Chunk:
        head = self._head
        return Chunk(
            id=head.id, created=head.created, model=head.model, choices=choices, usage=usage
        )


# ---------------------------------------------------------------- both

_encoder = msgspec.json.Encoder()


def _canonical(call: ToolCall) -> ToolCall:
    """The call with `{}` for empty arguments, which clients would fail to parse."""
    if call.function.arguments.strip():
        return call
    return msgspec.structs.replace(call, function=FunctionCall(call.function.name, "{}"))


def _finish_reason(reported: FinishReason, has_calls: bool, is_legacy: bool) -> FinishReason:
    if has_calls:
        return "function_call" if is_legacy else "tool_calls"
    return "stop" if reported in ("tool_calls", "function_call") else reported


def _unfinished() -> BackendUnavailable:
    return BackendUnavailable("the backend's answer ended before its end")
