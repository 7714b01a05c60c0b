"""Requests from before there were tools: `functions`, `function_call`, messages of role `function`.

They are read as the tools, calls and results that they are, so that routing, verification and local
engines know one form only. The answer goes back in the old form: `ChatRequest.is_legacy`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec.structs import replace

from proxy.protocol.openai import (
    ChatRequest,
    MalformedRequest,
    Message,
    NamedChoice,
    NamedFunction,
    PastCall,
    Tool,
)


def modern(request: ChatRequest) -> ChatRequest:
    """The request with tools in the place of functions; raises MalformedRequest if it has both."""
    messages = request.messages
    if any(message.function_call or message.role == "function" for message in messages):
        messages = list(_modern_messages(messages))
    if not request.functions:
        return replace(request, messages=messages) if messages is not request.messages else request
    if request.tools:
        raise MalformedRequest("`functions` and `tools` exclude each other", "$.functions")
    return replace(
        request,
        messages=messages,
        tools=[Tool("function", function) for function in request.functions],
        tool_choice=_choice(request.function_call),
        # There is one place in the answer, hence one call.
        parallel_tool_calls=False,
    )


def in_the_client_s_words(error: MalformedRequest) -> MalformedRequest:
    """The error with the paths of the old form: `$.functions[0].name`."""
    told = re.sub(r"\$\.tools\[(\d+)\]\.function\b", r"$.functions[\1]", str(error))
    param = error.param and re.sub(
        r"^\$\.tools\[(\d+)\]\.function", r"$.functions[\1]", error.param
    )
    return MalformedRequest(told, param)


def _choice(
    function_call: Literal["none", "auto"] | NamedFunction | None,
) -> Literal["none", "auto"] | NamedChoice | None:
    if isinstance(function_call, NamedFunction):
        return NamedChoice("function", function_call)
    return function_call


def _modern_messages(messages: Sequence[Message]) -> Iterator[Message]:
    id = "call_0"
    for index, message in enumerate(messages):
        if message.function_call is not None and not message.tool_calls:
            id = f"call_{index}"
            call = PastCall(id, function=message.function_call)
            yield replace(message, tool_calls=[call], function_call=None)
        elif message.role == "function":
            yield replace(message, role="tool", tool_call_id=id)
        else:
            yield message
