"""Answers as OpenAI and Azure OpenAI write them, down to what only one of the two sends.

Source: OpenAI API reference, chat completions and responses; Azure OpenAI reference, content
filtering. Azure's streams begin with a chunk without choices, whose id and model are empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

Flavour = Literal["openai", "azure"]
Json = dict[str, Any]

_MODEL = "gpt-4o-2024-08-06"
_SAFE = {"hate": {"filtered": False, "severity": "safe"}}
_USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


class Said(NamedTuple):
    """What an answer says: text in the pieces in which it is streamed, or calls."""

    pieces: Sequence[str] = ()
    calls: Sequence[tuple[str, str]] = ()
    """Name and JSON arguments of each call."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


# ---------------------------------------------------------------- chat completions


def completion(said: Said, flavour: Flavour) -> Json:
    """A whole chat completion."""
    calls = [_call(index, name, arguments) for index, (name, arguments) in enumerate(said.calls)]
    message: Json = {"role": "assistant", "content": said.text or None, "refusal": None}
    message |= {"tool_calls": calls} if calls else {"annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(said)}
    about = {"prompt_filter_results": _prompt_filter()} if flavour == "azure" else {}
    return about | {
        "id": "chatcmpl-cloud",
        "object": "chat.completion",
        "created": 1,
        "model": _MODEL,
        "choices": [choice | _filtered(flavour)],
        "usage": _USAGE,
        "system_fingerprint": "fp_a1",
    }


def chunks(said: Said, flavour: Flavour, include_usage: bool) -> Iterator[Json]:
    """The same answer, streamed."""
    if flavour == "azure":
        opening = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        yield opening | {"prompt_filter_results": _prompt_filter()}
    extra = {"usage": None} if include_usage else {}
    for delta in _deltas(said):
        yield _chunk([_chunk_choice(delta, None, flavour)]) | extra
    yield _chunk([_chunk_choice({}, _reason(said), flavour)]) | extra
    if include_usage:
        yield _chunk([]) | {"usage": _USAGE}


def _deltas(said: Said) -> Iterator[Json]:
    content = None if said.calls else ""
    opened = {"role": "assistant", "content": content, "refusal": None}
    if not said.calls:
        yield opened
    yield from ({"content": piece} for piece in said.pieces)
    for index, (name, arguments) in enumerate(said.calls):
        opening = {"index": index} | _call(index, name, "")
        yield (opened if index == 0 else {}) | {"tool_calls": [opening]}
        for piece in _pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _chunk(choices: list[Json]) -> Json:
    return {
        "id": "chatcmpl-cloud",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": _MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_a1",
        "choices": choices,
        "obfuscation": "x7Kq",
    }


def _chunk_choice(delta: Json, reason: str | None, flavour: Flavour) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return choice | _filtered(flavour)


def _call(index: int, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_cloud{index}", "type": "function", "function": function}


def _pieces(arguments: str) -> Iterator[str]:
    """Arguments in pieces that are no JSON by themselves."""
    yield from (arguments[at : at + 7] for at in range(0, len(arguments), 7))


def _reason(said: Said) -> str:
    return "tool_calls" if said.calls else "stop"


def _filtered(flavour: Flavour) -> Json:
    return {"content_filter_results": _SAFE} if flavour == "azure" else {}


def _prompt_filter() -> list[Json]:
    return [{"prompt_index": 0, "content_filter_results": _SAFE}]


# ---------------------------------------------------------------- responses


def response(said: Said) -> Json:
    """A whole response of the Responses API."""
    return _response("completed", [item for item, _ in _items(said)])


def response_events(said: Said) -> Iterator[Json]:
    """The same, streamed; each event has its number."""
    for number, event in enumerate(_response_events(said)):
        yield event | {"sequence_number": number}


def _response_events(said: Said) -> Iterator[Json]:
    begun = _response("in_progress", [])
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, (item, begins) in enumerate(_items(said)):
        at = {"output_index": index, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "output_index": index, "item": begins}
        yield from (
            _message_events(at, said) if item["type"] == "message" else _call_events(at, item)
        )
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": response(said)}


def _message_events(at: Json, said: Said) -> Iterator[Json]:
    at = at | {"content_index": 0}
    yield at | {"type": "response.content_part.added", "part": _text_part("")}
    for piece in said.pieces:
        yield at | {"type": "response.output_text.delta", "delta": piece, "logprobs": []}
    yield at | {"type": "response.output_text.done", "text": said.text, "logprobs": []}
    yield at | {"type": "response.content_part.done", "part": _text_part(said.text)}


def _call_events(at: Json, item: Json) -> Iterator[Json]:
    kind = "response.function_call_arguments"
    for piece in _pieces(item["arguments"]):
        yield at | {"type": f"{kind}.delta", "delta": piece}
    done = {"arguments": item["arguments"], "name": item["name"]}
    yield at | {"type": f"{kind}.done"} | done


def _items(said: Said) -> Iterator[tuple[Json, Json]]:
    """Each item of the output as it is in the end, and as it begins."""
    if not said.calls:
        item = {"id": "msg_1", "type": "message", "role": "assistant"}
        whole = {"status": "completed", "content": [_text_part(said.text)]}
        yield item | whole, item | {"status": "in_progress", "content": []}
    for index, (name, arguments) in enumerate(said.calls):
        item = {"id": f"fc_{index}", "type": "function_call", "name": name}
        item |= {"call_id": f"call_cloud{index}"}
        whole = {"status": "completed", "arguments": arguments}
        yield item | whole, item | {"status": "in_progress", "arguments": ""}


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(status: str, output: list[Json]) -> Json:
    usage = {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    return {
        "id": "resp_cloud",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": _MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage if status == "completed" else None,
    }


def named_event(event: Json) -> bytes:
    """A server-sent event that also has its name, as those of the Responses API have."""
    return b"event: " + event["type"].encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
