"""Puts the name that the client asked for back into a cloud's answer; all other values stay bytes.

Only needed where routes.yaml maps a name to the cloud's own; elsewhere answers pass untouched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

_HELD = 8 * 1024 * 1024
"""Bytes that may wait for the end of their event; a longer one is passed in pieces."""

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def rename(answer: bytes, model: str) -> bytes:
    """The JSON object with its `model` replaced; what is no object with a model stays as it is."""
    try:
        fields = _decoder.decode(answer)
    except (ValueError, RecursionError):
        return answer
    if "model" not in fields:
        return answer
    return msgspec.json.encode({**fields, "model": model})


def rename_events(events: bytes, model: str) -> bytes:
    """Whole server-sent events with the `model` of each replaced."""
    return b"\n".join(_renamed_line(line, model) for line in events.split(b"\n"))


async def whole_events(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut where events end, so that an error can follow at any time."""
    rest = b""
    async for piece in content:
        rest += piece
        end = _end_of_events(rest)
        if end or len(rest) > _HELD:
            yield rest[:end] if end else rest
            rest = rest[end:] if end else b""
    if rest:
        yield rest


def _renamed_line(line: bytes, model: str) -> bytes:
    name, _, value = line.partition(b":")
    if name != b"data" or not value.lstrip().startswith(b"{"):
        return line
    return b"data: " + rename(value, model)


def _end_of_events(wire: bytes) -> int:
    """Where the last whole event ends; 0 where none does."""
    ends = (wire.rfind(end) + len(end) for end in (b"\n\n", b"\r\n\r\n") if end in wire)
    return max(ends, default=0)
