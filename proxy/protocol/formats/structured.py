"""Structured API generation: the answer is one JSON object that names a tool and its arguments.

The pitch's object has exactly three keys, `arguments`, `query` and `tool_name`. The query only
repeats what the user said, so code fills it in (`with_query`); the model writes the other two, the
tool first, since a small model should choose before it fills in. `structured-echo` has the model
repeat the query too, last, so that constrained decoding can stop before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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

    opening = '{"tool_name"'
    many = False

    def __init__(self, echo: bool = False, family: Literal["chatml", "llama3"] = "chatml") -> None:
        """`echo`: whether the model repeats the user's words as `query`. `family`: of the base
        model, whose turns end in their own way."""
        suffix = "" if family == "chatml" else f"-{family}"
        self.name = f"structured{'-echo' if echo else ''}{suffix}"
        self.template = self.name
        self.chat: str = family
        self.end = END if family == "chatml" else "<|eot_id|>"
        self._echo = echo

    def answer(self, calls: Sequence[FunctionCall], query: str = "") -> str:
        (only,) = calls
        echoed = f', "query": {dumps(query)}' if self._echo else ""
        return f'{{"tool_name": {dumps(only.name)}, "arguments": {only.arguments}{echoed}}}'

    def parse(self, text: str) -> Parsed:
        stripped = text.strip()
        if not stripped.startswith("{"):
            return Parsed(stripped)
        try:
            written = msgspec.json.decode(stripped, type=_Written)
        except (ValueError, RecursionError):
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
