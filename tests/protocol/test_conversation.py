from __future__ import annotations

import pytest

from proxy.protocol.conversation import check_messages
from proxy.protocol.openai import FunctionCall, MalformedRequest, Message, PastCall

USER = Message(role="user", content="Ping a and b.")
CALLS = Message(
    role="assistant", tool_calls=[PastCall(id, function=FunctionCall("ping")) for id in ("1", "2")]
)
FIRST = Message(role="tool", tool_call_id="1", content="up")
SECOND = Message(role="tool", tool_call_id="2", content="up")


@pytest.mark.parametrize(
    "messages",
    [[USER], [USER, CALLS, FIRST, SECOND, USER], [USER, CALLS, SECOND, FIRST], [USER, CALLS]],
)
def test_results_after_their_calls_are_fine(messages: list[Message]):
    check_messages(messages)


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        ([FIRST], "$.messages[0].tool_call_id"),
        ([USER, CALLS, FIRST, USER, SECOND], "$.messages[4].tool_call_id"),
        ([USER, CALLS, Message(role="tool", content="up")], "$.messages[2]"),
        ([USER, CALLS, Message(role="tool", tool_call_id="3")], "$.messages[2].tool_call_id"),
    ],
)
def test_result_without_a_call_is_told_with_its_place(messages: list[Message], path: str):
    with pytest.raises(MalformedRequest) as caught:
        check_messages(messages)

    assert caught.value.param == path
