"""Changes the model's name in a request or an answer; all other values stay bytes.

A request gets the name from its path (Azure's deployments), an answer the name that the client
asked for where routes.yaml maps it to the cloud's own. Everything else passes untouched.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import msgspec

_HELD = 8 * 1024 * 1024
"""Bytes that may wait for the end of their event; a longer one is passed in pieces."""
_LONGEST = 256 * 1024 * 1024
"""Bytes of a whole answer that may wait for its end; a longer one passes as it is. Chosen: above
the embeddings of as many texts as OpenAI takes at once."""

_EVENT = re.compile(rb".+?(?:\r?\n\r?\n|$)", re.DOTALL)
_EMPTY = re.compile(rb"\[\s*\]")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_model(request: bytes, model: str) -> bytes:
    """The JSON object with this `model`; itself when it has it, or is no object."""
    try:
        fields = _decoder.decode(request)
    except (ValueError, RecursionError):
        return request
    named = msgspec.Raw(msgspec.json.encode(model))
    if fields.get("model") == named:
        return request
    return msgspec.json.encode({**fields, "model": named})


def rename(answer: bytes, model: str) -> bytes:
    """The JSON object with its `model` replaced; what is no object with a model stays as it is."""
    try:
        fields = _decoder.decode(answer)
    except (ValueError, RecursionError):
        return answer
    if "response" in fields:
        # An event of a streamed response: the object that has the name is inside.
        inner = rename(bytes(fields["response"]), model)
        return msgspec.json.encode({**fields, "response": msgspec.Raw(inner)})
    if "model" not in fields:
        return answer
    return msgspec.json.encode({**fields, "model": model})


def rename_events(events: bytes, model: str) -> bytes:
    """Whole server-sent events with the `model` of each replaced."""
    return b"\n".join(_renamed_line(line, model) for line in events.split(b"\n"))


async def rename_content(
    content_type: str, content: AsyncIterator[bytes], model: str
) -> AsyncIterator[bytes]:
    """An answer, streamed or whole, with its `model` replaced; another kind of answer as it is."""
    if content_type.startswith("text/event-stream"):
        async for events in whole_events(content):
            yield rename_events(events, model)
    elif content_type.startswith("application/json"):
        async for piece in _renamed(content, model):
            yield piece
    else:
        async for piece in content:
            yield piece


async def _renamed(content: AsyncIterator[bytes], model: str) -> AsyncIterator[bytes]:
    held = bytearray()
    async for piece in content:
        held += piece
        if len(held) > _LONGEST:
            yield bytes(held)
            break
    else:
        yield rename(bytes(held), model)
    async for piece in content:
        yield piece


class WholeEvents:
    """Cuts a stream where events end, so that an error can follow at any time."""

    def __init__(self) -> None:
        self.rest = b""
        """What has come of an event that is not whole yet."""

    def feed(self, piece: bytes) -> bytes:
        """The events that are whole once this piece is there; may be empty."""
        wire = self.rest + piece if self.rest else piece
        end = _end_of_events(wire)
        if not end and len(wire) > _HELD:
            end = len(wire)
        self.rest = wire[end:]
        return wire[:end]


async def whole_events(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut where events end."""
    cut = WholeEvents()
    async for piece in content:
        if events := cut.feed(piece):
            yield events
    if cut.rest:
        yield cut.rest


def without_usage(events: bytes) -> bytes:
    """Whole server-sent events without the chunk that reports usage."""
    if not _NO_CHOICES.search(events):
        return events
    return b"".join(event for event in _EVENT.findall(events) if not _reports_usage(event))


def _reports_usage(event: bytes) -> bool:
    try:
        chunk = _decoder.decode(event.removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return False
    usage, choices = chunk.get("usage", msgspec.Raw(b"null")), chunk.get("choices")
    return choices is not None and _EMPTY.fullmatch(choices) is not None and bytes(usage) != b"null"


def _renamed_line(line: bytes, model: str) -> bytes:
    field, _, value = line.partition(b":")
    if field != b"data" or not value.lstrip().startswith(b"{"):
        return line
    return b"data: " + rename(value, model)


def _end_of_events(wire: bytes) -> int:
    """Where the last whole event ends; 0 where none does."""
    if wire.endswith(b"\n\n"):
        return len(wire)
    ends = (wire.rfind(end) + len(end) for end in (b"\n\n", b"\r\n\r\n") if end in wire)
    return max(ends, default=0)
