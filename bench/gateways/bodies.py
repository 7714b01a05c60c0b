"""What the clients ask, and what the upstream answers: sizes as agents send and get them."""

from __future__ import annotations

import msgspec

MODEL = "gpt-4o"
EVENTS = 60
"""Events of the text stream, `[DONE]` left out."""
DELTAS = 20
"""Events of the stream that brings a tool call."""

ARGUMENTS = msgspec.json.encode({"city": "Oslo", "country": "NO", "days": 3, "on": "2026-11-22"})


def tool(number: int, fields: int) -> dict[str, object]:
    """A function with so many described arguments besides its city."""
    options: dict[str, object] = {
        f"option_{index}": {"type": "string", "description": f"What option {index} is set to."}
        for index in range(fields)
    }
    named = {
        "city": {"type": "string", "description": "Name of the city, in English."},
        "country": {"type": "string", "enum": ["DE", "FR", "IT", "NO", "US"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "on": {"type": "string", "description": "The first day, as 2026-11-22."},
    }
    parameters = {"type": "object", "properties": named | options, "required": ["city"]}
    function = {
        "name": f"weather_service_{number}",
        "description": f"Asks service {number} for the weather in a city, and gives a forecast.",
        "parameters": parameters,
    }
    return {"type": "function", "function": function}


def request(tools: int, fields: int, *, stream: bool = False, text: str = "") -> bytes:
    """The body of a chat request."""
    asked = "What will the weather be in Oslo over the next three days?"
    messages = [
        {"role": "system", "content": "You answer with a tool call wherever one fits. " * 3},
        {"role": "user", "content": asked + text},
    ]
    body: dict[str, object] = {"model": MODEL, "messages": messages, "temperature": 0}
    body["tools"] = [tool(number, fields) for number in range(tools)]
    if stream:
        body["stream"] = True
    return msgspec.json.encode(body)


SMALL = request(5, 1)
"""2.6 KB with 5 tools."""
LARGE = request(40, 3)
"""25 KB with 40 tools."""
SMALL_STREAM = request(5, 1, stream=True)

_HEAD = {"id": "chatcmpl-bench", "created": 1_795_000_000, "model": MODEL}


def _completion() -> bytes:
    called = {"name": "weather_service_1", "arguments": ARGUMENTS.decode()}
    call = {"id": "call_1", "type": "function", "function": called}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    usage = {"prompt_tokens": 612, "completion_tokens": 34, "total_tokens": 646}
    said = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}
    return msgspec.json.encode(said)


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    said = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + msgspec.json.encode(said) + b"\n\n"


def _text() -> list[bytes]:
    words = [_chunk({"content": f" word{index}"}) for index in range(EVENTS - 2)]
    return [_chunk({"role": "assistant", "content": ""}), *words, _chunk({}, "stop"), _DONE]


def _call() -> list[bytes]:
    said = ARGUMENTS.decode()
    size = -(-len(said) // (DELTAS - 2))
    parts = [said[at : at + size] for at in range(0, len(said), size)]
    function: dict[str, object] = {"name": "weather_service_1", "arguments": ""}
    first = {"index": 0, "id": "call_1", "type": "function", "function": function}
    deltas = [
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in parts
    ]
    opening = _chunk({"role": "assistant", "content": None, "tool_calls": [first]})
    return [opening, *deltas, _chunk({}, "tool_calls"), _DONE]


_DONE = b"data: [DONE]\n\n"
COMPLETION = _completion()
"""580 bytes: one tool call that fits its schema."""
TEXT = _text()
CALL = _call()
