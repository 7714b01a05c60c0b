"""A completion or one of its chunks as clouds send them, which differ: as lenient as can be.

Only what is listened for is read; whatever a field lacks is None.
"""

from __future__ import annotations

import msgspec

from proxy.protocol.openai import Usage


class Said(msgspec.Struct):
    """Part of a call's name and arguments; `input` is what a custom tool gets."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class CallPart(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Said | None = None
    custom: Said | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPart] | None = None
    function_call: Said | None = None


class Choice(msgspec.Struct):
    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class Piece(msgspec.Struct):
    """A chunk or a completion."""

    id: str | None = None
    created: int | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: object = None


_decoder = msgspec.json.Decoder(Piece)


def read(content: bytes) -> Piece:
    """The chunk or completion in `content`; raises ValueError or RecursionError."""
    return _decoder.decode(content)
