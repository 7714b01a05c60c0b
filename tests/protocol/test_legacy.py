from __future__ import annotations

import msgspec
import pytest

from proxy.errors import BadRequest
from proxy.gateway import parse
from proxy.protocol.legacy import modern
from proxy.protocol.openai import MalformedRequest, parse_request

PING = {"name": "ping", "parameters": {"type": "object"}}
USER = {"role": "user", "content": "Ping a."}


def body(**fields: object) -> bytes:
    return msgspec.json.encode({"model": "gpt-4o", "messages": [USER], **fields})


def test_functions_become_tools_of_which_one_may_be_called():
    request = modern(parse_request(body(functions=[PING], function_call={"name": "ping"})))

    assert [function.name for function in request.offered] == ["ping"]
    assert request.tool_choice.function.name == "ping"
    assert request.parallel_tool_calls is False
    assert request.is_legacy


def test_calls_and_results_in_the_history_become_tool_calls_and_their_results():
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    result = {"role": "function", "name": "f", "content": "up"}

    _, asked, answered, *_ = parse(body(messages=[USER, call, result, call, result])).messages

    assert asked.tool_calls[0].function.name == "f"
    assert (answered.role, answered.tool_call_id) == ("tool", asked.tool_calls[0].id)


def test_request_without_functions_stays_itself():
    request = parse_request(body())

    assert modern(request) is request
    assert not request.is_legacy


def test_functions_beside_tools_are_refused():
    tools = [{"type": "function", "function": PING}]

    with pytest.raises(MalformedRequest, match="exclude"):
        modern(parse_request(body(functions=[PING], tools=tools)))


def test_error_names_the_place_in_the_old_form():
    with pytest.raises(BadRequest, match=r"\(at \$\.functions\[0\]\.parameters\)") as caught:
        parse(body(functions=[{"name": "f", "parameters": {"type": "objekt"}}]))

    assert caught.value.param == "$.functions[0].parameters"
