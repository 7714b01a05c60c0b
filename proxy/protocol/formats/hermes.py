"""Hermes function calling: any number of `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

Source: NousResearch, Hermes-Function-Calling; vLLM parses it as `hermes`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from proxy.protocol.formats.base import END, Parsed, call, dumps
from proxy.protocol.formats.constraint import Calls, CallShape
from proxy.protocol.openai import Function, FunctionCall, ToolCall

_json = json.JSONDecoder()


class _Written(msgspec.Struct):
    """A call as the model writes it."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Hermes:
    """Calls in tags, text around them."""

    name = "hermes"
    template = "hermes"
    chat = "chatml"
    end = END
    opening = "<tool_call>"
    many = True

    def answer(self, calls: Sequence[FunctionCall]) -> str:
        return "\n".join(
            f'<tool_call>\n{{"name": {dumps(c.name)}, "arguments": {c.arguments}}}\n</tool_call>'
            for c in calls
        )

    def parse(self, text: str) -> Parsed:
        before, opening, rest = text.partition(self.opening)
        calls: list[ToolCall] = []
        while opening:
            # Where the JSON ends is for JSON to say: its strings may hold the tags themselves.
            written, end = _written(rest)
            if written is None:
                return Parsed(before.strip(), tuple(calls), broken=opening + rest)
            calls.append(written)
            _, opening, rest = rest[end:].partition(self.opening)
        return Parsed(before.strip(), tuple(calls))

    def constraint(self, functions: Sequence[Function], required: bool, many: bool) -> Calls:
        return Calls(
            trigger=self.opening,
            shapes=tuple(_shape(function) for function in functions),
            required=required,
            many=many,
        )


def _written(text: str) -> tuple[ToolCall | None, int]:
    """The call at the beginning of a text, and where it ends."""
    start = len(text) - len(text.lstrip())
    try:
        _, end = _json.raw_decode(text, start)
        written = msgspec.json.decode(text[start:end], type=_Written)
    except (ValueError, RecursionError):
        return None, 0
    return call(written.name, bytes(written.arguments).decode()), end


def _shape(function: Function) -> CallShape:
    return CallShape(
        begin=f'<tool_call>\n{{"name": {dumps(function.name)}, "arguments": ',
        schema=function.schema,
        end="}\n</tool_call>",
    )
