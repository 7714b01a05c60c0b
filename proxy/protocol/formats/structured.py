"""Structured API generation: the answer is one JSON object that names a tool and its arguments.

The pitch's object has exactly three keys, `arguments`, `query` and `tool_name`. The query only
repeats what the user said, so code fills it in (`with_query`); the model writes the other two, the
tool first, since a small model should choose before it fills in.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proxy.protocol.formats.base import END, Parsed, call, decoded, dumps
from proxy.protocol.formats.constraint import Calls, CallShape
from proxy.protocol.openai import Function, FunctionCall


class _Written(msgspec.Struct):
    """A call as the model writes it."""

    tool_name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Structured:
    """One JSON object, or plain text when no tool fits."""

    name = "structured"
    template = "structured"
    chat = "chatml"
    end = END
    opening = '{"tool_name"'
    many = False

    def answer(self, calls: Sequence[FunctionCall]) -> str:
        (only,) = calls
        return f'{{"tool_name": {dumps(only.name)}, "arguments": {only.arguments}}}'

    def parse(self, text: str) -> Parsed:
        stripped = text.strip()
        if not stripped.startswith("{"):
            return Parsed(stripped)
        try:
            written = msgspec.json.decode(stripped, type=_Written)
        except msgspec.MsgspecError:
            return Parsed("", broken=stripped)
        return Parsed("", (call(written.tool_name, bytes(written.arguments).decode()),))

    def constraint(self, functions: Sequence[Function], required: bool, many: bool) -> Calls:
        return Calls(
            trigger=self.opening,
            shapes=tuple(_shape(function) for function in functions),
            required=required,
            many=False,
        )


def with_query(function: FunctionCall, query: str) -> str:
    """The pitch's object for a call: keys sorted, the user's words as `query`."""
    return dumps(
        {"arguments": decoded(function.arguments), "query": query, "tool_name": function.name}
    )


def _shape(function: Function) -> CallShape:
    return CallShape(
        begin=f'{{"tool_name": {dumps(function.name)}, "arguments": ',
        schema=function.schema,
        end="}",
    )
