"""An exchange: one logical request, its attempts, and what became of it.

The proxy writes exchanges, the trainer reads them; docs/exchange.md is this file in prose. Readers
ignore fields that they do not know, so that old files stay readable and new ones can be read by
old code; a change of meaning raises VERSION.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.openai import ToolCall, Usage

VERSION = 1
CHAT = "/chat/completions"
"""The endpoint of exchanges that hold a request and an answer."""

Outcome: TypeAlias = Literal["completed", "invalid", "failed", "client_aborted", "upstream_aborted"]
Kind: TypeAlias = Literal["primary", "sample", "repair", "fallback", "hedge", "shadow"]


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backend said, in whole or, when the attempt was cut short, in part."""

    text: str = ""
    refusal: str = ""
    """What a cloud said in place of an answer that it would not give."""
    tool_calls: list[ToolCall] = []
    finish_reason: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend's try at a request."""

    kind: Kind
    backend: str
    adapter: str | None = None
    """Immutable adapter id such as `api-v1`; None for the base model and for clouds."""
    format: str | None = None
    outcome: Outcome
    reason: str | None = None
    """Why it is not `completed`: a code, never a text from the network."""
    answer: Answer = Answer()
    usage: Usage | None = None
    mean_logprob: float | None = None
    name_probability: float | None = None
    """That the engine gave to the tool's name, 0 to 1; None where it cannot tell."""
    arguments_probability: float | None = None
    """The same for the arguments: the product over their tokens."""
    repairs: list[str] = []
    """Codes of protocol.repair: what was put right in the calls before the client got them."""
    started_at: float
    """Seconds since the epoch."""
    first_byte_s: float | None = None
    """Seconds from the start of the attempt to the first event."""
    total_s: float


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A recorded request.

    Only `completed` ones of the endpoint CHAT hold a whole answer: the trainer reads no others.
    """

    id: str
    """The response's id, `chatcmpl-…`."""
    request_id: str
    version: int = VERSION
    started_at: float
    """Seconds since the epoch, when the last byte of the request had arrived."""
    total_s: float
    tenant: str
    caller: str
    domain: str
    route: str
    model: str
    """The name the client asked for."""
    stream: bool
    tools_fingerprint: str | None = None
    request: msgspec.Raw
    """The body that the client sent, a JSON object."""
    attempts: list[Attempt]
    """In the order in which they were started; the last one answered the client."""
    outcome: Outcome
    status: int
    """HTTP status that the client saw."""
    retries: int = 0
    """How often the client's SDK had sent this request before (x-stainless-retry-count)."""
    drifted: list[str] = []
    """Tools whose schema is not the one that the first adapter of the plan was trained with."""
    endpoint: str = CHAT
    """What was asked, below /v1. What is passed on to a cloud unread leaves no more than this: its
    `request` is `{}` and its answers are empty, `completed` or not."""
