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


class Details(msgspec.Struct):
    cached_tokens: int | None = None


class Counted(msgspec.Struct):
    """Usage, with what the cloud had in its cache."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Details | None = None

    @property
    def plain(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens, self.total_tokens)

    @property
    def cached(self) -> int:
        details = self.prompt_tokens_details
        return (details and details.cached_tokens) or 0


class Piece(msgspec.Struct):
    """A chunk or a completion."""

    id: str | None = None
    created: int | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Counted | None = None
    error: object = None

    @property
    def plain_usage(self) -> Usage | None:
        return None if self.usage is None else self.usage.plain


_decoder = msgspec.json.Decoder(Piece)


def read(content: bytes) -> Piece:
    """The chunk or completion in `content`; raises ValueError or RecursionError."""
    return _decoder.decode(content)
