"""A chat request as TGI accepts it.

Source: router/src/lib.rs `ChatRequest` at db931fcf. TGI answers 422 to much that OpenAI allows
(`stop` as a text, nulls, `top_p: 1`, a tool without parameters) and garbles some of the rest
(`presence_penalty`, `content: ""` beside calls). So a new request is written, with the fields that
mean there what the client meant.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from proxy.backends.dialect import Conversation, Sampling
from proxy.backends.tgi.schemas import objection
from proxy.protocol.openai import ChatRequest, Function, Message, NamedChoice

Object: TypeAlias = dict[str, object]

BASE = "tgi"
"""TGI's name for the base model, whatever it is."""
RESERVED = ("no_tool", "notify_error")
"""Tools that TGI adds itself."""
MAX_CONSTRAINED = 1024
"""Tokens of a constrained answer: TGI generates in portions of 1024 and begins each anew in the
grammar's first state."""


def body(conversation: Conversation) -> Object:
    """The JSON body of a streamed chat completion."""
    request = conversation.request
    tools = _tools(request)
    constrained = bool(tools) or _answer_format(request) is not None
    return {
        "model": conversation.adapter or BASE,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        **sampled(conversation.sampling, constrained),
        **({"tools": tools, "tool_choice": _choice(request)} if tools else {}),
        **({} if tools else {"response_format": f} if (f := _answer_format(request)) else {}),
    }


def sampled(sampling: Sampling, constrained: bool) -> Object:
    """The fields that say how an answer is drawn. `presence_penalty` is left out: TGI makes a
    repetition penalty of 2 + p of it."""
    most = min(sampling.max_tokens, MAX_CONSTRAINED) if constrained else sampling.max_tokens
    fields: Object = {"max_tokens": most, "temperature": sampling.temperature}
    if 0 < sampling.top_p < 1:
        fields["top_p"] = sampling.top_p
    if sampling.seed is not None:
        fields["seed"] = sampling.seed % 2**64
    if sampling.frequency_penalty:
        fields["frequency_penalty"] = sampling.frequency_penalty
    return fields


def lacks(request: ChatRequest) -> str | None:
    """The field whose schemas TGI's grammar compiler must not see, or could not hold apart."""
    functions = [] if request.tool_choice == "none" else request.offered
    asked = request.response_format is not None and request.response_format.type != "text"
    if any(f.name in RESERVED or objection(bytes(f.schema)) for f in functions):
        return "tools"
    if asked and (functions or _answer_format(request) is None):
        return "response_format"
    return None


def grammar(schema: msgspec.Raw) -> Object | None:
    """TGI's grammar of a schema; None where the schema must not be sent."""
    if objection(bytes(schema)) is not None:
        return None
    return {"type": "json", "value": schema}


def _answer_format(request: ChatRequest) -> Object | None:
    asked = request.response_format
    if asked is None or asked.json_schema is None:
        return None
    return grammar(asked.json_schema.schema)


def _tools(request: ChatRequest) -> list[Object]:
    if request.tool_choice == "none":
        return []
    return [{"type": "function", "function": _function(f)} for f in request.offered]


def _function(function: Function) -> Object:
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.schema,
    }


def _choice(request: ChatRequest) -> object:
    choice = request.tool_choice
    if isinstance(choice, NamedChoice) and choice.function is not None:
        return {"type": "function", "function": {"name": choice.function.name}}
    return choice or "auto"


def _message(message: Message) -> Object:
    """Text, or calls: of a message that has both TGI would drop the calls, so we drop the text."""
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    if not message.tool_calls:
        return {"role": role, "content": message.text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls
        if call.function is not None  # a custom tool's: `lacks` has kept such requests away
    ]
    return {"role": role, "tool_calls": calls}
