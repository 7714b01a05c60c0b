from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.protocol.openai import MalformedRequest, parse_object, parse_request
from proxy.protocol.responses.request import beyond_chat, in_the_client_s_words, parse, to_chat

PING = {"type": "function", "name": "ping", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}


def request(**fields: object) -> dict[str, object]:
    return {"model": "gpt-4o", "input": "Ping a."} | fields


def chat(**fields: object) -> Any:
    """The chat request that stands for a request with these fields."""
    return msgspec.json.decode(to_chat(parse(msgspec.json.encode(request(**fields)))))


def beyond(**fields: object) -> str | None:
    return beyond_chat(parse_object(msgspec.json.encode(request(**fields))))


def test_text_becomes_a_user_s_message_and_nothing_else_is_asked():
    assert chat() == {"model": "gpt-4o", "messages": [{"role": "user", "content": "Ping a."}]}


def test_settings_and_tools_have_their_counterparts():
    asked = chat(
        instructions="Be brief.",
        tools=[PING],
        tool_choice={"type": "function", "name": "ping"},
        parallel_tool_calls=False,
        stream=True,
        max_output_tokens=9,
        temperature=0,
        top_p=0.5,
        user="u",
        text={"format": SCHEMA, "verbosity": "low"},
    )

    function = {name: value for name, value in PING.items() if name != "type"}
    assert asked == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Ping a."},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "ping"}},
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "user": "u",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
        },
    }


def test_calls_and_what_came_of_them_become_one_turn_and_its_results():
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Ping"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text",
         "text": "I will.", "annotations": []}]},
        {"type": "function_call", "call_id": "1", "name": "ping", "arguments": "{}", "id": "fc"},
        {"type": "function_call", "call_id": "2", "name": "ping", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "up"},
        {"type": "function_call_output", "call_id": "2",
         "output": [{"type": "input_text", "text": "down"}]},
    ]  # fmt: skip

    user, assistant, first, second = chat(input=items)["messages"]

    assert user == {"role": "user", "content": [{"type": "text", "text": "Ping"}]}
    assert assistant["content"] == [{"type": "text", "text": "I will."}]
    assert [call["id"] for call in assistant["tool_calls"]] == ["1", "2"]
    assert first == {"role": "tool", "tool_call_id": "1", "content": "up"}
    assert second["content"] == [{"type": "text", "text": "down"}]


def test_what_is_made_is_a_chat_request():
    body = to_chat(parse(msgspec.json.encode(request(tools=[PING], text={"format": SCHEMA}))))

    assert parse_request(body).unread == ()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"store": False, "include": ["reasoning.encrypted_content"], "truncation": "disabled"},
        {"service_tier": "auto", "reasoning": {"effort": "low"}, "metadata": {"a": "b"}},
        {
            "previous_response_id": None,
            "background": False,
            "top_logprobs": 0,
            "conversation": None,
        },
        {"tools": [PING], "tool_choice": "required", "input": [{"role": "user", "content": "x"}]},
    ],
)
def test_chat_can_stand_for_it(fields: dict[str, object]):
    assert beyond(**fields) is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [PING, {"type": "custom", "name": "c"}]}, "tools"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"type": "computer_call_output", "output": {"type": "x"}}]}, "input"),
        ({"invented": 1}, "invented"),
        ({"In\nvented": 1}, "field"),
    ],
)
def test_chat_cannot_stand_for_it(fields: dict[str, object], name: str):
    assert beyond(**fields) == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 1}, "$.input"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "$.input[0].role"),
        ({"input": [{"role": "user"}]}, "$.input[0]"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "$.input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "$.input[0]"),
        ({"max_output_tokens": -1}, "$.max_output_tokens"),
        ({"tools": [{"type": "function"}]}, "$.tools[0]"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "$.text.format.schema"),
    ],
)
def test_malformed_request_is_told_with_its_place(fields: dict[str, object], param: str):
    with pytest.raises(MalformedRequest) as caught:
        chat(**fields)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("no (at $.tools[2].function.parameters)", "no (at $.tools[2].parameters)"),
        ("$.response_format.json_schema.schema", "$.text.format.schema"),
        ("no (at $.messages[3].tool_call_id)", "no (at $.input)"),
    ],
)
def test_place_in_the_chat_is_told_as_the_place_in_the_request(theirs: str, ours: str):
    assert in_the_client_s_words(theirs) == ours
