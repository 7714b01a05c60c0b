"""Calls in tags: any number of `<tag>{"name": …, "arguments": {…}}</tag>`, text before them.

Hermes and CEP are this with different words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from proxy.protocol.formats.base import END, Parsed, call, dumps
from proxy.protocol.formats.constraint import Calls, CallShape
from proxy.protocol.openai import Function, FunctionCall, ToolCall

_json = json.JSONDecoder()


class Tagged:
    """A format whose calls stand in tags."""

    chat = "chatml"
    end = END
    many = True

    def __init__(self, name: str, tag: str, key: str) -> None:
        """`key` is what the tool's name is called in the JSON within `<tag>`."""
        self.name = name
        self.template = name
        self.opening = f"<{tag}>"
        self._closing = f"</{tag}>"
        self._key = key
        self._written = msgspec.defstruct(
            "Written", [(key, str), ("arguments", msgspec.Raw, msgspec.Raw(b"{}"))]
        )

    def answer(self, calls: Sequence[FunctionCall], query: str = "") -> str:
        return "\n".join(f"{self._begin(c.name)}{c.arguments}{self._finish}" for c in calls)

    def parse(self, text: str) -> Parsed:
        before, opening, rest = text.partition(self.opening)
        calls: list[ToolCall] = []
        while opening:
            # Where the JSON ends is for JSON to say: its strings may hold the tags themselves.
            written, end = self._first(rest)
            if written is None:
                return Parsed(before.strip(), tuple(calls), broken=opening + rest)
            calls.append(written)
            _, opening, rest = rest[end:].partition(self.opening)
        return Parsed(before.strip(), tuple(calls))

    def constraint(self, functions: Sequence[Function], required: bool, many: bool) -> Calls:
        return Calls(
            trigger=self.opening,
            shapes=tuple(
                CallShape(begin=self._begin(f.name), schema=f.schema, end=self._finish)
                for f in functions
            ),
            required=required,
            many=many,
        )

    def _begin(self, name: str) -> str:
        return f'{self.opening}\n{{"{self._key}": {dumps(name)}, "arguments": '

    @property
    def _finish(self) -> str:
        return f"}}\n{self._closing}"

    def _first(self, text: str) -> tuple[ToolCall | None, int]:
        """The call at the beginning of a text, and where it ends."""
        start = len(text) - len(text.lstrip())
        try:
            _, end = _json.raw_decode(text, start)
            written = msgspec.json.decode(text[start:end], type=self._written)
        except (ValueError, RecursionError):
            return None, 0
        name, arguments = msgspec.structs.astuple(written)
        return call(name, bytes(arguments).decode()), end
