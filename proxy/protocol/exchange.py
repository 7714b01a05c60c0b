"""An exchange: one logical request, its attempts, and what became of it.

The proxy writes exchanges, the trainer reads them; docs/exchange.md is this file in prose. Readers
ignore fields that they do not know, and fields that a version added have a default, so that old
files stay readable and new ones can be read by old code; a change of meaning raises VERSION.

    1  the first
    2  `request` may be empty (`level`); conversation, tool results, cost and whose usage it is
    3  `assigned`
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.openai import ToolCall, Usage

VERSION = 3
CHAT = "/chat/completions"
"""The endpoint of exchanges that hold a request and an answer."""

Outcome: TypeAlias = Literal["completed", "invalid", "failed", "client_aborted", "upstream_aborted"]
Kind: TypeAlias = Literal["primary", "sample", "repair", "fallback", "hedge", "shadow"]
Level: TypeAlias = Literal["off", "metadata", "full"]
"""How much of an exchange is kept: nothing, all but what was said, all."""
UsageSource: TypeAlias = Literal["reported", "estimated"]
ToolOutcome: TypeAlias = Literal["ok", "error"]


class NewerRecord(Exception):
    """A record that a newer release wrote; the message names the file, and what helps."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backend said, in whole or, when the attempt was cut short, in part."""

    text: str = ""
    refusal: str = ""
    """What a cloud said in place of an answer that it would not give."""
    tool_calls: list[ToolCall] = []
    finish_reason: str | None = None


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call that an earlier exchange of the conversation made."""

    tool_call_id: str
    outcome: ToolOutcome
    """Judged by the rules in routes.yaml, from the tool's own message."""
    name: str | None = None
    """The tool's name, where the request tells it."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend's try at a request."""

    kind: Kind
    backend: str
    adapter: str | None = None
    """Immutable adapter id such as `api-v1`; None for the base model and for clouds."""
    format: str | None = None
    replica: str | None = None
    """Which of the backend's servers was asked; None where there is one."""
    model: str | None = None
    """The model that a cloud says answered, `gpt-4o-2024-08-06`, or else the one that it was asked
    for; None for local backends."""
    outcome: Outcome
    reason: str | None = None
    """Why it is not `completed`: a code, never a text from the network."""
    answer: Answer = Answer()
    usage: Usage | None = None
    usage_source: UsageSource | None = None
    """Whose count `usage` is: the backend's, or ours by the length of the texts."""
    cached_tokens: int = 0
    """Of the prompt's tokens, those that the backend had in its cache."""
    cost_usd: float | None = None
    """What the attempt cost, in US dollars; None where no price is known."""
    mean_logprob: float | None = None
    name_probability: float | None = None
    """That the engine gave to the tool's name, 0 to 1; None where it cannot tell."""
    arguments_probability: float | None = None
    """The same for the arguments: the product over their tokens."""
    repairs: list[str] = []
    """Codes of protocol.repair: what was put right in the calls before the client got them."""
    started_at: float
    """Seconds since the epoch."""
    queued_s: float | None = None
    """Seconds that it waited for a place on the backend's server; None where there is no queue of
    ours. What an engine's own queue takes is part of `first_byte_s`: none of them tells."""
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
    version: int = 1
    """Of this schema. Version 1 was not written down, hence the default; writers say VERSION."""
    started_at: float
    """Seconds since the epoch, when the last byte of the request had arrived."""
    total_s: float
    tenant: str
    caller: str
    domain: str
    route: str
    assigned: str = ""
    """Which side of a running comparison it was put on, by chance: `split:azure` (the backend that
    was to answer first), `canary:geo-v8`, or `champion:geo-v7` beside a canary; empty where none
    runs, or where it had no say."""
    model: str
    """The name the client asked for."""
    stream: bool
    tools_fingerprint: str | None = None
    conversation: str = ""
    """Id of the conversation: the client's, or derived from its first messages (`conv-…`)."""
    tool_results: list[ToolResult] = []
    """What the tools said that this request brings the results of: it closes the loop of the
    exchange whose answer has the call with this id."""
    level: Level = "full"
    """`metadata`: `request` is `{}`, and answers are empty."""
    request: msgspec.Raw
    """The body that the client sent, a JSON object; redacted where routes.yaml says so."""
    attempts: list[Attempt]
    """In the order of their start, but for the one that answered the client, which stands last."""
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

    @property
    def cost_usd(self) -> float | None:
        """What all attempts cost, in US dollars; None where no price is known."""
        costs = [one.cost_usd for one in self.attempts if one.cost_usd is not None]
        return sum(costs) if costs else None
