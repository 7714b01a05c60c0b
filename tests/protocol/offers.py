"""Requests that offer tools, and calls of them."""

from __future__ import annotations

import msgspec

from proxy.protocol.openai import ChatRequest, Function, FunctionCall, ToolCall, parse_request

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["C", "F"]},
        "on": {"type": "string", "format": "date"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["city"],
}


def function(name: str = "weather", **fields: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **fields}}


def request(*tools: object, **fields: object) -> ChatRequest:
    said = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools, **fields}
    return parse_request(msgspec.json.encode(said))


def call(arguments: str = '{"city":"Oslo"}', name: str = "weather") -> ToolCall:
    return ToolCall("call_1", FunctionCall(name, arguments))


def described(name: str = "weather", **fields: object) -> Function:
    return request(function(name, **fields)).offered[0]
