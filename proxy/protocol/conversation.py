"""Whether the messages of a request follow one another as a conversation does.

Source: OpenAI API reference, chat completions: a tool's result answers a call that the assistant
made just before.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.protocol.openai import MalformedRequest, Message


def check_messages(messages: Sequence[Message]) -> None:
    """Raise MalformedRequest, with the field's path, for a tool's result that answers no call."""
    asked: set[str] = set()
    for index, message in enumerate(messages):
        if message.role != "tool":
            asked = {call.id for call in message.tool_calls or ()}
            continue
        path = f"$.messages[{index}]"
        if message.tool_call_id is None:
            raise _malformed("a message of role 'tool' needs a `tool_call_id`", path)
        if message.tool_call_id not in asked:
            raise _malformed(
                "a message of role 'tool' must follow the assistant's message whose `tool_calls`"
                " it answers; none of them has this id",
                f"{path}.tool_call_id",
            )


def _malformed(message: str, path: str) -> MalformedRequest:
    return MalformedRequest(f"{message} (at {path})", path)
