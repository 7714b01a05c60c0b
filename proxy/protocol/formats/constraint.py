"""What an answer may look like, in no engine's own terms.

An engine that can constrain decoding translates these (embedded: grammar.py); one that cannot
ignores them, and verification catches what comes out.
"""

from __future__ import annotations

import msgspec


class CallShape(msgspec.Struct, frozen=True):
    """A call of one offered tool: a literal, JSON by `schema`, a literal."""

    begin: str
    schema: msgspec.Raw
    """JSON Schema of the arguments."""
    end: str


class Calls(msgspec.Struct, frozen=True):
    """Free text in which `trigger` begins a call, which then has one of the shapes."""

    trigger: str
    shapes: tuple[CallShape, ...]
    required: bool
    """Whether the answer must begin with a call (`tool_choice` required, or a named tool)."""
    many: bool
    """Whether more calls may follow the first; if not, the answer ends with it."""


class JsonObject(msgspec.Struct, frozen=True):
    """The whole answer is JSON by `schema` (`response_format`)."""

    schema: msgspec.Raw


Constraint = Calls | JsonObject
