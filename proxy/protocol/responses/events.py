"""The events of a streamed response, made of the chunks of a streamed completion.

    response.created, .in_progress
        output_item.added
            content_part.added, output_text.delta …, output_text.done, content_part.done
        output_item.done
        output_item.added
            function_call_arguments.delta …, function_call_arguments.done
        output_item.done
    response.completed or .incomplete

The law: what a client puts together from them is the response that the last event holds, and the
one that the whole completion would make.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from proxy.protocol import loose
from proxy.protocol.openai import Usage
from proxy.protocol.responses.answer import (
    Output,
    OutputCall,
    OutputMessage,
    OutputText,
    Part,
    Refusal,
    Response,
    Status,
    closed,
    item_id,
    opened,
    status_of,
)
from proxy.protocol.responses.request import ResponseRequest

Field: TypeAlias = str | int | list[str] | Part | Output | Response
Event: TypeAlias = dict[str, Field]


@dataclass
class _Text:
    """A part of the message that is being said."""

    kind: type[OutputText] | type[Refusal]
    pieces: list[str] = field(default_factory=list)

    @property
    def part(self) -> Part:
        said = "".join(self.pieces)
        return OutputText(text=said) if self.kind is OutputText else Refusal(refusal=said)


@dataclass
class _Message:
    index: int
    id: str
    parts: list[_Text] = field(default_factory=list)

    def item(self, status: Status) -> OutputMessage:
        content = [text.part for text in self.parts]
        return OutputMessage(id=self.id, content=content, status=status)


@dataclass
class _Call:
    index: int
    id: str
    call_id: str
    name: str
    pieces: list[str] = field(default_factory=list)

    def item(self, status: Status) -> OutputCall:
        arguments = "".join(self.pieces)
        if status == "completed":
            arguments = arguments or "{}"
        return OutputCall(
            id=self.id, call_id=self.call_id, name=self.name, arguments=arguments, status=status
        )


class ResponseEvents:
    """Turns the chunks of one completion into the events of one response, as they come."""

    def __init__(self, request: ResponseRequest) -> None:
        self._request = request
        self._response: Response | None = None
        self._items = 0
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}
        self._done: list[Output] = []
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._number = 0

    def feed(self, chunk: loose.Piece) -> list[Event]:
        """The events of one chunk; chunks of choices beyond the first have none."""
        return list(self._numbered(self._of(chunk)))

    def end(self) -> list[Event]:
        """The last events; raises ValueError when the completion had not come to its end."""
        if self._response is None or self._finish_reason is None:
            raise ValueError("the completion ended before its end")
        return list(self._numbered(self._ending(self._response, self._finish_reason)))

    def _numbered(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            yield {**event, "sequence_number": self._number}
            self._number += 1

    def _of(self, chunk: loose.Piece) -> Iterator[Event]:
        if self._response is None:
            created = int(time.time()) if chunk.created is None else chunk.created
            self._response = opened(self._request, chunk.id or "", created)
            yield {"type": "response.created", "response": self._response}
            yield {"type": "response.in_progress", "response": self._response}
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._finish_reason = choice.finish_reason or self._finish_reason
                if choice.delta is not None:
                    yield from self._delta(self._response, choice.delta)

    def _delta(self, response: Response, delta: loose.Delta) -> Iterator[Event]:
        if delta.content:
            yield from self._said(response, OutputText, delta.content)
        if delta.refusal:
            yield from self._said(response, Refusal, delta.refusal)
        for position, call in enumerate(delta.tool_calls or ()):
            index = position if call.index is None else call.index
            yield from self._called(response, index, call)

    # ------------------------------------------------------------ text

    def _said(
        self, response: Response, kind: type[OutputText] | type[Refusal], piece: str
    ) -> Iterator[Event]:
        message = self._message
        if message is None:
            message = _Message(self._items, item_id(response, "msg", self._items))
            self._items, self._message = self._items + 1, message
            yield _added(message.index, message.item("in_progress"))
        if not message.parts or message.parts[-1].kind is not kind:
            yield from _part_done(message)
            message.parts.append(_Text(kind))
            yield _place(message, "response.content_part.added") | {"part": message.parts[-1].part}
        message.parts[-1].pieces.append(piece)
        yield _place(message, f"response.{_NAMES[kind]}.delta") | {"delta": piece} | _logprobs(kind)

    def _message_done(self, status: Status) -> Iterator[Event]:
        if self._message is None:
            return
        message, self._message = self._message, None
        yield from _part_done(message)
        yield from self._item_done(message.index, message.item(status))

    # ------------------------------------------------------------ calls

    def _called(self, response: Response, index: int, part: loose.CallPart) -> Iterator[Event]:
        yield from self._message_done("completed")
        said = part.function or loose.Said()
        call = self._calls.get(index)
        if call is None:
            id = item_id(response, "fc", self._items)
            call = _Call(self._items, id, part.id or "", said.name or "")
            self._items += 1
            self._calls[index] = call
            yield _added(call.index, call.item("in_progress"))
        if said.arguments:
            call.pieces.append(said.arguments)
            yield {
                "type": "response.function_call_arguments.delta",
                "item_id": call.id,
                "output_index": call.index,
                "delta": said.arguments,
            }

    def _call_done(self, call: _Call) -> Iterator[Event]:
        item = call.item("completed")
        yield {
            "type": "response.function_call_arguments.done",
            "item_id": call.id,
            "output_index": call.index,
            "name": call.name,
            "arguments": item.arguments,
        }
        yield from self._item_done(call.index, item)

    # ------------------------------------------------------------ ends

    def _item_done(self, index: int, item: Output) -> Iterator[Event]:
        self._done.append(item)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}

    def _ending(self, response: Response, finish_reason: str) -> Iterator[Event]:
        status = status_of(finish_reason)
        if not self._items:
            # An empty answer is a message too.
            yield from self._said(response, OutputText, "")
        yield from self._message_done(status)
        for call in self._calls.values():
            yield from self._call_done(call)
        order = sorted(self._done, key=lambda item: int(item.id.rpartition("_")[2]))
        last = closed(response, order, finish_reason, self._usage)
        yield {"type": f"response.{last.status}", "response": last}


_NAMES = {OutputText: "output_text", Refusal: "refusal"}


def _added(index: int, item: Output) -> Event:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _place(message: _Message, type: str) -> Event:
    return {
        "type": type,
        "item_id": message.id,
        "output_index": message.index,
        "content_index": max(0, len(message.parts) - 1),
    }


def _part_done(message: _Message) -> Iterator[Event]:
    if not message.parts:
        return
    part = message.parts[-1].part
    said = {"text": part.text} if isinstance(part, OutputText) else {"refusal": part.refusal}
    kind = message.parts[-1].kind
    yield _place(message, f"response.{_NAMES[kind]}.done") | said | _logprobs(kind)
    yield _place(message, "response.content_part.done") | {"part": part}


def _logprobs(kind: type[OutputText] | type[Refusal]) -> Event:
    return {"logprobs": []} if kind is OutputText else {}
