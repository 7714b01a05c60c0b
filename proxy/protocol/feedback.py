"""Feedback: what somebody says, later, of an exchange or of a conversation.

Appended to the record beside the exchanges and never edited: who changes their mind says so with
another one. It belongs to the exchange or conversation of the same tenant; one that names another
tenant's belongs to nothing.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.exchange import Answer

Kind: TypeAlias = Literal["boolean", "float", "comment", "demonstration"]
Value: TypeAlias = bool | float | str | Answer

_TYPES: dict[Kind, type] = {
    "boolean": bool,
    "float": float,
    "comment": str,
    "demonstration": Answer,
}


class Feedback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One statement about one exchange or one conversation."""

    id: str
    """`feedback-…`"""
    version: int = 1
    given_at: float
    """Seconds since the epoch."""
    tenant: str
    caller: str
    exchange: str | None = None
    """Id of the exchange, `chatcmpl-…`, or of its request."""
    conversation: str | None = None
    name: str = ""
    """What is judged, where there are several things: `helpful`, `resolved`."""
    kind: Kind
    value: Value
    """Of the type that `kind` says; a demonstration is the answer that would have been right."""

    def __post_init__(self) -> None:
        if (self.exchange is None) == (self.conversation is None):
            raise ValueError("feedback is for an exchange or for a conversation: name one of them")
        if not isinstance(self.value, _TYPES[self.kind]):
            raise ValueError(f"`value` is not of the kind {self.kind!r}")
