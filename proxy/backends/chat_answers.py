"""A chat completion as engines send it, streamed or whole, put together for the cascade.

TGI's differ from OpenAI's, and with its version: a call's arguments are an object and the streamed
`tool_calls` not a list (3.1 and before), ids are "0" or 0, the end is not told when a call was
streamed (3.x), or told as `eos_token` and `stop_sequence`, and an end token may stand in the
arguments. All these are read here; what was recorded of them is replayed in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from proxy.backends.base import Call
from proxy.backends.dialect import End, Output, Piece
from proxy.errors import BackendUnavailable, InvalidAnswer
from proxy.protocol.formats.base import call
from proxy.protocol.openai import FinishReason, Usage

MAX_CALLS = 128
"""Calls in one answer."""

_FINISH: Mapping[str, FinishReason] = {
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
}
"""What is not "stop"; `eos_token` and `stop_sequence` are."""
_LEAKED = re.compile(r"(?:<\|[a-z_]+\|>|</s>)+\s*$")
_PSEUDO = ("no_tool", "notify_error")
"""Tools that TGI adds, with which a model says that none fits."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"")


class _Call(msgspec.Struct):
    index: int | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | _Call | None = None


class _Token(msgspec.Struct):
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class Completion(msgspec.Struct):
    """A chunk or a whole answer."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    error: object = None


@dataclass
class _Merged:
    name: str = ""
    arguments: list[str] = field(default_factory=list)


def completion(content: bytes) -> Completion:
    """The chunk or answer in a JSON text; raises BackendUnavailable when it is none."""
    try:
        return msgspec.json.decode(content, type=Completion)
    except (ValueError, RecursionError) as error:
        raise BackendUnavailable("the engine's answer cannot be read") from error


class ChatAnswer:
    """One answer, chunk by chunk. Only its first choice is read."""

    def __init__(self) -> None:
        self._calls: dict[int, _Merged] = {}
        self._finish: str | None = None
        self._usage: Usage | None = None

    def feed(self, chunk: Completion) -> Iterator[Output]:
        """The text of a chunk, or of a whole answer; calls are kept until the end."""
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices:
            if choice.index != 0:
                continue
            self._finish = choice.finish_reason or self._finish
            said = choice.delta or choice.message
            if said is not None:
                yield from self._said(said, choice.logprobs)

    def end(self) -> Iterator[Output]:
        """The calls, and the end. Raises BackendUnavailable when the answer broke off, and
        InvalidAnswer for a call that was cut."""
        if self._finish is None and not self._calls:
            raise BackendUnavailable("the engine's answer ended before its end")
        for _, merged in sorted(self._calls.items()):
            yield _output(merged)
        usage = self._usage
        yield End(
            reason=_FINISH.get(self._finish or "", "stop"),
            prompt_tokens=usage.prompt_tokens if usage else None,
            tokens=usage.completion_tokens if usage else None,
        )

    def _said(self, said: _Said, logprobs: _Logprobs | None) -> Iterator[Output]:
        if said.content:
            rated = [t.logprob for t in (logprobs and logprobs.content) or () if t.logprob]
            yield Piece(said.content, len(rated) or 1, sum(rated) if rated else None)
        calls = said.tool_calls or []
        for position, delta in enumerate(calls if isinstance(calls, list) else [calls]):
            self._add(position if delta.index is None else delta.index, delta.function)

    def _add(self, index: int, function: _Function | None) -> None:
        if len(self._calls) >= MAX_CALLS and index not in self._calls:
            raise InvalidAnswer(f"the answer holds more than {MAX_CALLS} calls", "broken_call")
        merged = self._calls.setdefault(index, _Merged())
        if function is not None:
            merged.name = merged.name or function.name or ""
            merged.arguments.append(_text(function.arguments))


def _text(arguments: msgspec.Raw) -> str:
    """Arguments as JSON text: a text on the wire, or an object (TGI 3.1 and before)."""
    content = bytes(arguments)
    if content.startswith(b'"'):
        return msgspec.json.decode(content, type=str)
    return "" if content in (b"", b"null") else content.decode()


def _output(merged: _Merged) -> Output:
    name, arguments = _unwrapped(merged.name, _LEAKED.sub("", "".join(merged.arguments)) or "{}")
    try:
        decoded = msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        raise InvalidAnswer("the answer ends inside a tool call", "broken_call") from None
    if name in _PSEUDO and isinstance(decoded, dict):
        return Piece(next((v for v in decoded.values() if isinstance(v, str)), ""))
    if not name:
        raise InvalidAnswer("the answer holds a call of no function", "broken_call")
    return Call(call(name, arguments))


def _unwrapped(name: str, arguments: str) -> tuple[str, str]:
    """Name and arguments; older TGI streams its own grammar's text, with the name inside."""
    if name:
        return name, arguments
    try:
        inner = msgspec.json.decode(arguments, type=_Wrapped).function
    except (ValueError, RecursionError):
        return name, arguments
    named = msgspec.json.decode(inner.pop("_name", msgspec.Raw(b'""')), strict=False)
    return str(named), msgspec.json.encode(inner).decode()


class _Wrapped(msgspec.Struct):
    function: dict[str, msgspec.Raw]
