"""Which conversation a request belongs to, and what its tools said since.

A client names the conversation in a header or in `metadata`; else its first messages do: they stay
the same from turn to turn, as a client sends all of them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from proxy.outcomes import OutcomeRules
from proxy.protocol.exchange import ToolResult

MAX_ID = 256
"""Characters of an id that a client may give; a longer one is cut."""

_NAMES = ("conversation_id", "session_id")


class _Function(msgspec.Struct):
    name: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"")
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Body(msgspec.Struct):
    messages: list[_Message] = []
    metadata: dict[str, object] | None = None


_decoder = msgspec.json.Decoder(_Body)


class Conversation:
    """What a chat request's body says of its conversation; a body of another form says nothing."""

    def __init__(self, body: bytes) -> None:
        try:
            self._body = _decoder.decode(body)
        except (ValueError, RecursionError):
            self._body = _Body()

    def id(self, tenant: str, header: str | None = None) -> str:
        """The client's name for the conversation, or one that its first messages give it.

        Empty when there is neither.
        """
        return self._named(header) or self._derived(tenant)

    def tool_results(self, rules: OutcomeRules) -> list[ToolResult]:
        """How the calls went whose results this request brings: those after the last answer."""
        names = self._names()
        return [
            ToolResult(
                tool_call_id=id, name=names.get(id), outcome=rules.judge(names.get(id), said)
            )
            for id, said in self._results()
        ]

    def _named(self, header: str | None) -> str | None:
        metadata = self._body.metadata or {}
        given = [header, *(metadata.get(name) for name in _NAMES)]
        return next((id[:MAX_ID] for id in given if isinstance(id, str) and id), None)

    def _derived(self, tenant: str) -> str:
        first = list(_opening(self._body.messages))
        if not first:
            return ""
        digest = hashlib.sha256(msgspec.json.encode([tenant, *first])).hexdigest()
        return f"conv-{digest[:24]}"

    def _names(self) -> dict[str, str]:
        calls = [call for message in self._body.messages for call in message.tool_calls or ()]
        return {call.id: call.function.name for call in calls}

    def _results(self) -> Iterator[tuple[str, str]]:
        messages = self._body.messages
        asked = [index for index, message in enumerate(messages) if message.role == "assistant"]
        for message in messages[asked[-1] + 1 :] if asked else ():
            if message.role == "tool" and message.tool_call_id:
                yield message.tool_call_id, _text(message.content)


def _opening(messages: Sequence[_Message]) -> Iterator[list[str]]:
    """Role and content of each message up to the user's first."""
    for message in messages:
        yield [message.role, _text(message.content)]
        if message.role == "user":
            return


def _text(content: msgspec.Raw) -> str:
    """The text of a message's content; of what is no plain text, its JSON."""
    if not bytes(content):
        return ""
    said: object = msgspec.json.decode(content)
    if isinstance(said, list):
        return "".join(_part(part) for part in said)
    return said if isinstance(said, str) else bytes(content).decode()


def _part(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else msgspec.json.encode(part).decode()
