"""What is wrong with a request is told with its place; a 5xx never is the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from proxy.backends.base import Text
from tests import scripted
from tests.openai_api import api_errors
from tests.scripted import ScriptedCloud
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import TOOLS, ask, body, cloud_backend, send

DEEP = b"[" * 10_000 + b"]" * 10_000
USER = b'"model":"gpt-4o","messages":[{"role":"user","content":"x"}]'
SCHEMA = b'{"type":"function","function":{"name":"f","parameters":%s}}'


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving_with(settings("local"), Engine("local", [Text("hi"), finish()])) as url:
        yield url


@pytest.mark.parametrize(
    ("content", "param"),
    [
        pytest.param(b"{" + USER, None, id="no end"),
        pytest.param(b'{"a":"\xff",' + USER + b"}", None, id="invalid UTF-8 where nobody looks"),
        pytest.param(b'{"a":"\\ud800",' + USER + b"}", None, id="half a character"),
        pytest.param(b'{"a":NaN,' + USER + b"}", None, id="NaN where nobody looks"),
        pytest.param(b'{"temperature":NaN,' + USER + b"}", None, id="NaN"),
        pytest.param(b'{"temperature":1e999,' + USER + b"}", "$.temperature", id="infinite"),
        pytest.param(b'{"a":' + DEEP + b"," + USER + b"}", None, id="deep where nobody looks"),
        pytest.param(
            b'{"tools":[' + SCHEMA % (b'{"x":' + DEEP + b"}") + b"]," + USER + b"}", None, id="deep"
        ),
        pytest.param(b'{"model":"x",' + USER + b"}", "$.model", id="two models"),
        pytest.param(
            b'{"tools":[' + SCHEMA % b'{"type":"object","type":"object"}' + b"]," + USER + b"}",
            "$.tools[0].function.parameters.type",
            id="a key twice in a schema",
        ),
        pytest.param(b'{"max_tokens":-1,' + USER + b"}", "$.max_tokens", id="negative"),
        pytest.param(b'{"max_tokens":1.5,' + USER + b"}", "$.max_tokens", id="half a token"),
        pytest.param(
            b'{"max_tokens":' + b"9" * 400 + b"," + USER + b"}", "$.max_tokens", id="too long"
        ),
        pytest.param(b'{"seed":' + b"9" * 20 + b"," + USER + b"}", "$.seed", id="no 64 bits"),
        pytest.param(b'{"stream":"yes",' + USER + b"}", "$.stream", id="text for a truth"),
        pytest.param(b'{"stop":[1],' + USER + b"}", "$.stop[0]", id="number for a text"),
        pytest.param(
            b'{"stop":["a"' + b',"b"' * 100 + b"]," + USER + b"}", "$.stop", id="endless stops"
        ),
        pytest.param(b'{"tools":{},' + USER + b"}", "$.tools", id="object for a list"),
        pytest.param(b'{"tools":[{"type":"function"}],' + USER + b"}", "$.tools[0]", id="no name"),
        pytest.param(b'{"tool_choice":"must",' + USER + b"}", "$.tool_choice", id="no such choice"),
        pytest.param(b'{"functions":[{}],' + USER + b"}", "$.functions[0]", id="legacy, no name"),
    ],
)
async def test_malformed_body_is_told_with_its_place(url: str, content: bytes, param: str | None):
    response = await send("POST", f"{url}/chat/completions", content)

    error = response.json["error"]
    assert (response.status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    assert param is None or f"(at {param})" in error["message"]
    assert len(error["message"]) < 300
    assert api_errors(response.json, "ErrorResponse") == []


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "wizard", "content": "x"}, "$.messages[1].role"),
        ({"content": "x"}, "$.messages[1]"),
        ({"role": "user", "content": 1}, "$.messages[1].content"),
        ({"role": "user", "content": [{"text": "x"}]}, "$.messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]},
         "$.messages[1].content[0].text"),
        ({"role": "tool", "content": "up"}, "$.messages[1]"),
        ({"role": "tool", "tool_call_id": "x", "content": "up"}, "$.messages[1].tool_call_id"),
        ({"role": "function", "name": "f", "content": "up"}, "$.messages[1].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "$.messages[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f",
          "arguments": {}}}]}, "$.messages[1].tool_calls[0].function.arguments"),
        ("hi", "$.messages[1]"),
        (None, "$.messages[1]"),
    ],
)  # fmt: skip
async def test_malformed_message_is_told_with_its_place(url: str, message: object, param: str):
    response = await ask(url, messages=[{"role": "user", "content": "x"}, message])

    assert (response.status, response.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings", "responses"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"model":null}', b'{"a":1,"a":2}', DEEP]
)
async def test_every_endpoint_refuses_what_is_no_request(
    cloud: ScriptedCloud, path: str, content: bytes
):
    cloud.plays(scripted.answer({}))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await send("POST", f"{url}/{path}", content)

    assert response.status == 400
    assert api_errors(response.json, "ErrorResponse") == []
    assert cloud.requests == []


async def test_name_of_an_unknown_model_is_not_repeated_at_length(url: str):
    response = await ask(url, model="x" * 100_000)

    assert (response.status, response.json["error"]["code"]) == (404, "model_not_found")
    assert len(response.content) < 1000


async def test_mebibyte_of_tools_is_served(url: str):
    tool = {"type": "function", "function": {"description": "x" * 1000, "parameters": {}}}
    tools = [tool | {"function": tool["function"] | {"name": f"f{i}"}} for i in range(1000)]

    response = await ask(url, tools=tools)

    assert len(msgspec.json.encode(tools)) > 2**20
    assert response.status == 200


async def test_deep_but_decent_schema_is_served(url: str):
    schema: dict[str, object] = {"type": "string"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"a": schema}}

    response = await ask(url, tools=[{"type": "function", "function": {"name": "f",
                                      "parameters": schema}}])  # fmt: skip

    assert response.status == 200


async def test_client_cannot_say_what_is_unread():
    local = Engine("local", [Text("hi"), finish()])

    async with serving_with(settings("local"), local) as url:
        await ask(url, **{" unread": ["n"]})

    assert local.asks[0].request.unread == ()


async def test_body_of_a_request_with_tools_is_as_sent():
    local = Engine("local", [Text("hi"), finish()])
    content = b'{"tools":' + TOOLS + b" ," + USER + b"}"

    async with serving_with(settings("local"), local) as url:
        await send("POST", f"{url}/chat/completions", content)

    assert local.asks[0].body == content
    assert body()["tools"] == msgspec.json.decode(TOOLS)
