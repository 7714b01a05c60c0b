"""A backend completes chats: what is asked of one, and the two forms that its reply takes.

A cloud speaks OpenAI's protocol already, so that its reply is *relayed*: status, headers and bytes
pass through. A local engine sends text and tool calls, its reply is *generated*: events that the
cascade verifies and `assemble` puts into OpenAI's form.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from proxy.backends.confidence import Confidence
from proxy.protocol.adapter import Adapter
from proxy.protocol.openai import ChatRequest, FinishReason, NamedChoice, ToolCall, Usage


class Text(msgspec.Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """A tool call, complete but not yet verified."""

    call: ToolCall


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an answer; always the last event."""

    reason: FinishReason
    usage: Usage
    mean_logprob: float | None = None
    """Mean natural-log probability of the answer's tokens; None where the engine gives none."""
    confidence: Confidence | None = None
    """How sure the engine was of the calls; None without calls, or where it cannot tell."""


Event = Text | Call | Finish


class Ask(msgspec.Struct, frozen=True):
    """One request as a backend sees it."""

    request: ChatRequest
    body: bytes
    """What the client sent, for backends that pass it on."""
    adapter: Adapter | None = None
    """The adapter that shall answer; None asks the base model, or means nothing to a cloud."""
    constrain: bool = True
    """Whether a local engine keeps calls inside the offered tools' schemas while it decodes."""
    bare: bool = False
    """Ask as for the adapter, but let the base answer: what an adapter is measured against."""
    tenant: str = ""
    """Whose request it is; an engine that can keeps what it remembers of tenants' prompts apart."""
    counted: bool = False
    """Have the usage reported where a backend has to be asked for that: somebody pays by it."""


class Generated(msgspec.Struct, frozen=True):
    """A local answer, still coming."""

    events: AsyncIterator[Sequence[Event]]
    """What came together, together: it goes on at the cost of one."""
    replica: str | None = None
    """Which of the backend's servers answers; None where there is one."""
    queued_s: float | None = None
    """Seconds that the request waited for a place there; None where there is no queue of ours."""


class Relayed(msgspec.Struct, frozen=True):
    """A remote answer in OpenAI's form, still coming; error statuses have been raised already."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; only those worth passing to the client."""
    content: AsyncIterator[bytes]
    renamed: bool = False
    """Whether the backend was asked under another model name than the client used; the client's
    name is then put back into the answer."""
    whole: bytes | None = None
    """All that `content` will give, where it is there already."""
    has_own_usage: bool = False
    """Whether it was us who asked for the chunk that reports usage; it is kept from the client."""


Reply = Generated | Relayed


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is passed on for what it is: of its meaning nothing is known here."""

    method: str
    target: str
    """Path below the server's base URL, and query: `/files?limit=2`. Percent-encoded, without dots
    for segments."""
    headers: Mapping[str, str]
    """Lower-case names; only those meant for the server behind."""
    body: bytes | AsyncIterator[bytes] | None
    model: str | None = None
    """The model that the client named, where the body is a JSON object that names one."""


@runtime_checkable
class Relaying(Protocol):
    """A backend that takes any request of OpenAI's API, not only chats."""

    name: str

    def relay(self, forward: Forward) -> AbstractAsyncContextManager[Relayed]:
        """Send the request on; leaving the context drops it.

        The reply's status is 2xx; raises ProxyError for all others.
        """


class Backend(Protocol):
    """Something that completes chats. Made once, in app.py; shared by all requests."""

    name: str
    is_local: bool
    """Whether it generates, rather than relays what another server answers."""

    def lacks(self, request: ChatRequest) -> str | None:
        """The first field of the request that this backend cannot serve; None when it can all.

        Asked before `ask`: a backend that lacks something is left out of the plan.
        """

    def ask(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send the request; leaving the context drops the backend's work within a second.

        Raises BackendError for what another backend might do better (it is down, busy, silent,
        broken) and BadRequest for what no backend would.
        """

    async def ready(self) -> bool:
        """Whether a request sent now has a fair chance; cheap, no side effects."""

    async def aclose(self) -> None:
        """Give everything back."""


@runtime_checkable
class Sparing(Protocol):
    """A backend whose places are few, and knows when it can spare one."""

    async def spare(self, adapter: Adapter | None) -> None:
        """Return when a request for this adapter, sent at once, would be in no client's way."""


_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")


def lacks_locally(request: ChatRequest) -> str | None:
    """What `Backend.lacks` says of any engine that generates one plain text at a time."""
    choice, format = request.tool_choice, request.response_format
    if (request.n or 1) > 1:
        return "n"
    if request.logprobs:
        return "logprobs"
    if any(tool.type != "function" for tool in request.tools or ()):
        return "tools"
    if isinstance(choice, NamedChoice) and choice.type != "function":
        return "tool_choice"
    if not all(message.is_plain_text for message in request.messages):
        return "messages"
    if format is not None and format.type not in ("text", "json_object", "json_schema"):
        return "response_format"
    # A client makes these names up: what is no plain word must not get into headers and logs.
    return next((n if _WORD.fullmatch(n) else "field" for n in request.unread), None)
