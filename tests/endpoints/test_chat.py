from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from proxy.backends.base import Event, Text
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import Pause, ScriptedCloud, chunk, completion, stream
from tests.serving import Engine, call, finish, serving, serving_with, settings
from tests.wire import ask, body, cloud_backend, events_of, send

MESSAGES = [{"role": "user", "content": "Ping a."}]
PING = body()["tools"]
CALL: list[Event] = [Text("I will. "), call("ping", '{"host": "a"}'), finish()]


@pytest.fixture
async def client() -> AsyncIterator[AsyncOpenAI]:
    """The official client, of a proxy with a local engine that calls `ping`."""
    async with (
        serving_with(settings("local"), Engine("local", CALL)) as url,
        AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client


# ---------------------------------------------------------------- the official client


async def test_official_client_gets_a_tool_call(client: AsyncOpenAI):
    answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=PING)

    choice = answer.choices[0]
    assert (answer.model, choice.finish_reason) == ("gpt-4o", "tool_calls")
    assert choice.message.tool_calls[0].function.arguments == '{"host": "a"}'
    assert answer.usage.total_tokens == 5


async def test_streamed_deltas_assemble_to_the_same_call(client: AsyncOpenAI):
    whole = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=PING)

    async with client.chat.completions.stream(
        model="gpt-4o", messages=MESSAGES, tools=PING, stream_options={"include_usage": True}
    ) as streamed:
        assembled = await streamed.get_final_completion()

    message = assembled.choices[0].message
    assert message.content == whole.choices[0].message.content
    assert message.tool_calls[0].function.name == "ping"
    assert message.tool_calls[0].function.arguments == '{"host": "a"}'
    assert assembled.usage.total_tokens == 5


async def test_official_client_sees_an_unknown_model_as_not_found(client: AsyncOpenAI):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-9", messages=MESSAGES)

    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.request_id.startswith("req_")


async def test_official_client_raises_an_error_that_comes_after_text():
    engine = Engine("local", [Text("I will. "), call("ping", "[]"), finish()])

    async with serving_with(settings("local"), engine) as url:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        answer = await client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, tools=PING, stream=True
        )
        with pytest.raises(openai.APIError, match="ping"):
            [chunk async for chunk in answer]


async def test_proxy_made_from_its_settings_answers_from_a_cloud(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hello"})))

    async with serving(settings(f"cloud={cloud.base_url}")) as url:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    assert answer.choices[0].message.content == "hello"


# ---------------------------------------------------------------- what is wrong with a request


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'\xff{"model":1}', None),
        (b'{"model":"gpt-4o"}', None),
        (b'{"model":"gpt-4o","messages":[{"role":"wizard"}]}', "$.messages[0].role"),
        (b'{"model":"gpt-4o","messages":[{"role":"user","content":1}]}', "$.messages[0].content"),
        (b'{"model":"gpt-4o","messages":[{"role":"user"}],"max_tokens":-1}', "$.max_tokens"),
        (b'{"model":"gpt-4o","messages":[{"role":"user"}],"x":' + b"[" * 10000, None),
        (
            b'{"model":"gpt-4o","messages":[{"role":"user"}],"tools":[{"type":"function",'
            b'"function":{"name":"f","parameters":{"type":"objekt"}}}]}',
            "$.tools[0].function.parameters",
        ),
    ],
)
async def test_malformed_request_is_told_with_the_place(content: bytes, param: str | None):
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        response = await send("POST", f"{url}/chat/completions", content)

    error = response.json["error"]
    assert response.status == 400
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    "headers", [{"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "br"}]
)
async def test_other_types_and_encodings_are_told_apart(headers: dict[str, str]):
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        response = await send("POST", f"{url}/chat/completions", b"{}", headers)

    assert response.status == 415
    assert response.json["error"]["code"] == "unsupported_media_type"


async def test_body_over_the_limit_is_refused():
    small = settings("local", extra="limits: {max_body_mib: 0.001}")

    async with serving_with(small, Engine("local", CALL)) as url:
        response = await ask(url, user="x" * 2000)

    assert response.status == 413
    assert "limits.max_body_mib" in response.json["error"]["message"]


async def test_body_over_the_limit_is_refused_when_its_length_is_not_said():
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    small = settings("local", extra="limits: {max_body_mib: 0.001}")

    async with serving_with(small, Engine("local", CALL)) as url:
        response = await send("POST", f"{url}/chat/completions", pieces())

    assert response.status == 413


async def test_large_tool_list_is_served():
    big = {"type": "object", "properties": {"host": {"type": "string", "description": "x" * 2**20}}}
    tool = {"type": "function", "function": {"name": "ping", "parameters": big}}

    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        response = await ask(url, tools=[tool])

    assert response.status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"Made-Up\n": 1}, "field"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages"),
    ],
)
async def test_what_no_backend_of_the_plan_can_serve_is_named(fields, param):
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        response = await ask(url, **fields)

    error = response.json["error"]
    assert (response.status, error["code"]) == (400, "unsupported_parameter")
    assert error["param"] == param
    assert "'openai'" in error["message"]


async def test_what_the_local_engine_cannot_serve_goes_to_the_cloud(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hello"})))
    local = Engine("local", CALL)

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await ask(url, n=2)

    assert response.status == 200
    assert response.headers["x-headrace-fallback-reason"] == "unsupported_n"
    assert cloud.requests[0].json["n"] == 2
    assert local.asks == []


async def test_one_request_too_many_is_told_when_to_return():
    local = Engine("local", [Pause(60)])

    async with serving_with(settings("local", extra="limits: {max_in_flight: 1}"), local) as url:
        first = asyncio.ensure_future(ask(url))
        await local.asked.wait()
        second = await ask(url)
        first.cancel()

    assert second.status == 429
    assert second.headers["retry-after-ms"] == "1000"


# ---------------------------------------------------------------- a client that leaves


@pytest.mark.parametrize("streams", [True, False])
async def test_client_that_leaves_before_the_first_byte_stops_a_local_engine(streams: bool):
    local = Engine("local", [Pause(60)])
    sink = MemorySink()

    async with serving_with(settings("local"), local, sink=sink) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(url, stream=streams)
        async with asyncio.timeout(1):
            await local.abandoned.wait()

    assert [exchange.outcome for exchange in sink.exchanges] == ["client_aborted"]


@pytest.mark.parametrize("streams", [True, False])
async def test_client_that_leaves_before_the_first_byte_stops_a_cloud(
    cloud: ScriptedCloud, streams: bool
):
    cloud.plays(Pause(60))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(url, stream=streams)
        async with asyncio.timeout(1):
            await cloud.abandoned.wait()


async def test_client_that_leaves_in_the_middle_stops_a_cloud(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "a"}), Pause(60)))
    sink = MemorySink()

    async with serving_with(settings("cloud"), cloud_backend(cloud), sink=sink) as url:
        events = events_of(url)
        await anext(events)
        await events.aclose()
        async with asyncio.timeout(1):
            await cloud.abandoned.wait()

    assert sink.exchanges[0].outcome == "client_aborted"
    assert sink.exchanges[0].status == 200
    assert sink.exchanges[0].attempts[0].answer.text == "a"


async def test_client_that_leaves_in_the_middle_of_its_own_request_is_no_error(
    cloud: ScriptedCloud,
):
    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        response = await send("GET", f"{url}/models")

    assert response.status == 200
    assert cloud.requests == []
