"""Llama 3.1's JSON calls: `{"name": …, "parameters": {…}}`, several separated by `; `.

Source: Meta, Llama 3.1 prompt format, "JSON based tool calling"; vLLM parses it as `llama3_json`.
What models of the family write beside it is read too: `<|python_tag|>` before the first call,
`"type": "function"` in it, `arguments` for `parameters`, a line end for the separator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec

from proxy.protocol.formats.base import Parsed, call, dumps
from proxy.protocol.formats.constraint import Calls, CallShape
from proxy.protocol.openai import Function, FunctionCall, ToolCall

_TAG = "<|python_tag|>"
_OPENING = re.compile(r'\{\s*"(?:name"|type"\s*:\s*"function")')
_SEPARATOR = re.compile(r"[\s;]*")
_json = json.JSONDecoder()


class _Written(msgspec.Struct):
    """A call as the model writes it."""

    name: str
    parameters: msgspec.Raw = msgspec.Raw(b"")
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Llama3:
    """Calls as bare JSON objects; text only before them."""

    name = "llama3"
    template = "llama3"
    chat = "llama3"
    end = "<|eot_id|>"
    opening = '{"name"'
    many = True

    def answer(self, calls: Sequence[FunctionCall], query: str = "") -> str:
        return "; ".join(f'{{"name": {dumps(c.name)}, "parameters": {c.arguments}}}' for c in calls)

    def parse(self, text: str) -> Parsed:
        found = _OPENING.search(text)
        if found is None:
            return Parsed(text.replace(_TAG, "").strip())
        before, rest = text[: found.start()].replace(_TAG, "").strip(), text[found.start() :]
        calls: list[ToolCall] = []
        while rest:
            written, end = _written(rest)
            if written is None:
                return Parsed(before, tuple(calls), broken=rest)
            calls.append(written)
            rest = _SEPARATOR.sub("", rest[end:], count=1)
        return Parsed(before, tuple(calls))

    def constraint(self, functions: Sequence[Function], required: bool, many: bool) -> Calls:
        return Calls(
            trigger=self.opening,
            shapes=tuple(_shape(function) for function in functions),
            required=required,
            many=many,
        )


def _written(text: str) -> tuple[ToolCall | None, int]:
    """The call at the beginning of a text, and where it ends."""
    try:
        _, end = _json.raw_decode(text)
        written = msgspec.json.decode(text[:end], type=_Written)
    except (ValueError, RecursionError):
        return None, 0
    arguments = bytes(written.parameters) or bytes(written.arguments)
    return call(written.name, arguments.decode()), end


def _shape(function: Function) -> CallShape:
    return CallShape(
        begin=f'{{"name": {dumps(function.name)}, "parameters": ',
        schema=function.schema,
        end="}",
    )
