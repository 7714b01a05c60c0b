"""Whatever a client sends, over a real socket: never a 5xx, never an error in another form.

500 requests, the same ones every time; `make test-long` sends 10 000 (HEADRACE_EXAMPLES).
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import math
import os
import socket
from typing import Any, NamedTuple

import msgspec
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from proxy.backends.base import Text
from proxy.backends.openai import OpenAIBackend
from proxy.endpoints import send_bytes
from tests.openai_api import api_errors
from tests.scripted import chunk, completion
from tests.serving import Engine, finish, listening, serving_with
from tests.serving import settings as served

EXAMPLES = int(os.environ.get("HEADRACE_EXAMPLES", "500"))
KEYS = {"message", "type", "param", "code"}


# ---------------------------------------------------------------- what is sent


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Ping a."}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "up"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "ping",
                "parameters": {"type": "object", "properties": {"host": {"type": "string"}}},
                "strict": True,
            },
        }
    ],
    "tool_choice": "auto",
    "functions": None,
    "function_call": None,
    "parallel_tool_calls": True,
    "stream": False,
    "stream_options": {"include_usage": True},
    "max_tokens": 9,
    "max_completion_tokens": None,
    "temperature": 1,
    "top_p": 1,
    "n": 1,
    "stop": ["x"],
    "seed": 1,
    "logprobs": None,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
    "user": "u",
}
RESPONSE: dict[str, Any] = {
    "model": "gpt-4o",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Ping a."}]},
        {"type": "function_call", "call_id": "1", "name": "ping", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "up"},
    ],
    "tools": [{"type": "function", "name": "ping", "parameters": {"type": "object"}}],
    "tool_choice": "auto",
    "stream": False,
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {}}},
    "max_output_tokens": 9,
    "temperature": 1,
    "metadata": {"a": "b"},
    "reasoning": {"effort": "low"},
}
EMBEDDING = {"model": "gpt-4o", "input": "hi", "dimensions": 3}

WORDS = st.sampled_from(
    ["", "gpt-4o", "user", "tool", "ping", "auto", "function", "custom", "json_object", "text",
     "type", "content", "role", "strict", "$ref", "#", "http://127.0.0.1:1/", "\ud83d"]
) | st.text(max_size=8)  # fmt: skip
NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**63, 10**40, 0.5, -1e300, math.nan])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with something in it exchanged, taken out or added."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 4)) == 0:
        return draw(JSON)
    if isinstance(value, list):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(changed(value[index])), *value[index + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    match draw(st.integers(0, 5)):
        case 0:
            return {key: inner for key, inner in value.items() if key != name}
        case 1:
            return value | {draw(WORDS): draw(JSON)}
        case _:
            return value | {name: draw(changed(value[name]))}


def encoded(value: Any) -> bytes:
    # Python's, as it also writes what is no JSON: NaN, half a character.
    return json.dumps(value).encode()


@st.composite
def broken(draw: st.DrawFn, body: bytes) -> bytes:
    """The body with some of its bytes exchanged for others."""
    at = draw(st.integers(0, len(body)))
    length = draw(st.integers(0, 3))
    return body[:at] + draw(st.binary(max_size=3)) + body[at + length :]


def bodies(valid: dict[str, Any]) -> st.SearchStrategy[bytes]:
    once = changed(valid)
    mutated = once.flatmap(changed).map(encoded) | once.map(encoded)
    return mutated | broken(encoded(valid)) | st.binary(max_size=20) | JSON.map(encoded)


PACKED: dict[str, Any] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "br": bytes,
}
TOKENS = st.text("abc/;=+*-,. \"'%é", max_size=12)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["content-type", "content-encoding", "authorization", "api-key", "x-request-id", "accept",
         "x-stainless-read-timeout", "x-stainless-retry-count", "x-headrace-adapter", "range",
         "openai-beta", "cookie", "upgrade", "expect"]
    ),
    TOKENS,
    max_size=2,
)  # fmt: skip
SEGMENT = st.sampled_from(["..", "%2e%2e", "%2f", "a", "", ".", "%", "%ff", "{}", "v1", "é"])
AZURE = "/openai/deployments/gpt-4o"


@st.composite
def posts(draw: st.DrawFn) -> Request:
    path, valid = draw(
        st.sampled_from(
            [
                ("/v1/chat/completions", CHAT),
                (f"{AZURE}/chat/completions?api-version=1", CHAT),
                ("/v1/responses", RESPONSE),
                ("/v1/embeddings", EMBEDDING),
                ("/v1/completions", EMBEDDING),
                (f"{AZURE}/images/generations", EMBEDDING),
                ("/v1/files", EMBEDDING),
            ]
        )
    )
    encoding = draw(st.sampled_from(["identity", "identity", "identity", *PACKED]))
    body = PACKED[encoding](draw(bodies(valid)))
    sent = {"content-type": "application/json", "content-encoding": encoding}
    if draw(st.booleans()):
        sent |= draw(HEADERS)
    return Request("POST", path, sent, body)


@st.composite
def anywhere(draw: st.DrawFn) -> Request:
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]))
    path = "/" + "/".join(draw(st.lists(SEGMENT, max_size=4)))
    start = draw(st.sampled_from(["", "/v1", "/openai", "/openai/v1", AZURE]))
    query = draw(st.sampled_from(["", "?", "?api-version=1", "?a=%0d%0a&b", "?api-version=&x=é"]))
    return Request(method, start + path + query, draw(HEADERS), b"")


# ---------------------------------------------------------------- where it is sent


async def cloud_app(scope: Scope, receive: Receive, send: Send) -> None:
    """A cloud that finds everything all right."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if b'"stream":true' in body:
        done = b"data: " + encoded(chunk({"content": "hi"}, "stop")) + b"\n\ndata: [DONE]\n\n"
        await send_bytes(send, done, {"content-type": "text/event-stream"})
    else:
        answer = encoded(completion({"role": "assistant", "content": "hi"}))
        await send_bytes(send, answer, {"content-type": "application/json"})


def answered(port: int, request: Request) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request as it stands: what a client's library would refuse is sent too."""
    headers = {"host": "x", "content-length": str(len(request.body)), **request.headers}
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.body)
        response = http.client.HTTPResponse(connection, method=request.method)
        response.begin()
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, named, response.read()


async def test_no_request_is_answered_with_a_5xx_or_a_malformed_error():
    local = Engine("local", [Text("hi"), finish()])
    # What the engine says is beside the point here: it is not checked.
    config = served("local", "cloud", verify="'off'")

    async with listening(cloud_app) as cloud:
        backend = OpenAIBackend("cloud", base_url=cloud)
        async with serving_with(config, local, backend) as url:
            port = int(url.removesuffix("/v1").rpartition(":")[2])
            # The server has this loop; whoever sends has a thread.
            await asyncio.to_thread(send_all, port)


def send_all(port: int) -> None:
    """Send EXAMPLES requests, one after the other."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(posts() | posts() | posts() | anywhere())
    def sent(request: Request) -> None:
        status, headers, content = answered(port, request)

        assert status < 500, content
        assert headers["x-request-id"]
        if status >= 400:
            told = msgspec.json.decode(content)
            assert told["error"].keys() == KEYS
            assert api_errors(told, "ErrorResponse") == []
            assert "None" not in told["error"].values()
            assert len(content) < 10_000

    sent()
