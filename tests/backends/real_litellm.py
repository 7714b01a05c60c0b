"""The litellm backend with the real library, against servers that play providers.

Run by `make test-litellm`, in a virtual environment of its own.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import litellm
import msgspec
import pytest

from proxy import sse
from proxy.config import Config, parse
from tests.scripted import (
    Cut,
    Pause,
    ScriptedCloud,
    answer,
    chunk,
    completion,
    error,
    head,
    stream,
    usage_chunk,
)
from tests.serving import serving
from tests.wire import Response, ask, body, events_of

KEY = "sk-very-secret-0123456789"
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "ping", "arguments": '{"host":"a"}'},
}


def config(provider: str, api_base: str, more: str = "") -> Config:
    """Settings whose only backend asks `provider`, which is at `api_base`, for every model."""
    return parse(
        f"""
version: 1
models: [gpt-4o, other]
backends:
  cloud:
    kind: litellm
    api_key: {KEY}
    api_base: {api_base}
    models: {{gpt-4o: {provider}/some-model}}
    {more}
domains: {{all: {{plan: [cloud]}}}}
defaults: {{tools: all, chat: all}}
""",
        Path("/nowhere"),
        {},
    )


def openai(cloud: ScriptedCloud, more: str = "") -> Config:
    return config("openai", cloud.base_url, more)


def azure(cloud: ScriptedCloud) -> Config:
    return config("azure", cloud.base_url.removesuffix("/v1"), "api_version: 2024-10-21")


def anthropic(cloud: ScriptedCloud) -> Config:
    return config("anthropic", cloud.base_url.removesuffix("/v1"))


def data(response: Response) -> list[bytes]:
    return sse.EventDecoder().feed(response.content)


def joined_arguments(events: list[bytes]) -> str:
    chunks = [msgspec.json.decode(event) for event in events if event != sse.DONE]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    return "".join(call["function"]["arguments"] for call in calls)


# ---------------------------------------------------------------- openai's form


async def test_whole_answer_comes_in_openais_form_under_the_clients_name(cloud: ScriptedCloud):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"})))

    async with serving(openai(cloud)) as url:
        response = await ask(url)

    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json["model"] == "gpt-4o"
    assert response.json["object"] == "chat.completion"
    assert response.json["choices"][0]["message"]["content"] == "hi"
    assert response.json["choices"][0]["finish_reason"] == "stop"
    assert response.json["usage"]["total_tokens"] == 5


async def test_provider_gets_our_key_its_own_model_name_and_every_field(cloud: ScriptedCloud):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"})))
    sent = body(seed=7, logit_bias={"5": 1}, metadata={"a": "b"}, brand_new={"x": [1, None]})

    async with serving(openai(cloud)) as url:
        await ask(url, **sent)

    (request,) = cloud.requests
    assert request.target == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json == sent | {"model": "some-model"}


async def test_client_can_not_say_where_the_key_is_sent(cloud: ScriptedCloud):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"})))

    async with serving(openai(cloud)) as url:
        response = await ask(
            url,
            api_base="http://127.0.0.1:1/v1",
            base_url="http://127.0.0.1:1/v1",
            api_key="mine",
            mock_response="made up",
            custom_llm_provider="anthropic",
        )

    assert response.json["choices"][0]["message"]["content"] == "hi"
    assert cloud.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_stream_comes_as_openais_events_and_ends_with_done(cloud: ScriptedCloud):
    cloud.plays(
        *stream(
            chunk({"role": "assistant", "content": "h"}),
            chunk({"content": "i"}),
            chunk({}, "stop"),
        )
    )

    async with serving(openai(cloud)) as url:
        response = await ask(url, stream=True)

    *chunks, done = data(response)
    said = [msgspec.json.decode(chunk) for chunk in chunks]
    deltas = [chunk["choices"][0]["delta"] for chunk in said]
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert done == sse.DONE
    assert "".join(delta.get("content", "") for delta in deltas) == "hi"
    assert [chunk["choices"][0]["finish_reason"] for chunk in said] == [None, None, "stop"]
    assert deltas[0]["role"] == "assistant"
    assert {chunk["model"] for chunk in said} == {"gpt-4o"}
    assert len({chunk["id"] for chunk in said}) == 1


async def test_text_is_streamed_as_it_comes(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "h"}), Pause(60)))

    async with serving(openai(cloud)) as url, asyncio.timeout(20):
        first = await anext(events_of(url))

    assert first["choices"][0]["delta"]["content"] == "h"


async def test_usage_comes_in_a_chunk_without_choices_when_it_is_asked_for(cloud: ScriptedCloud):
    cloud.plays(
        *stream(chunk({"role": "assistant", "content": "h"}), chunk({}, "stop"), usage_chunk(3, 2))
    )

    async with serving(openai(cloud)) as url:
        response = await ask(url, stream=True, stream_options={"include_usage": True})

    *_, usage, done = data(response)
    assert done == sse.DONE
    assert msgspec.json.decode(usage)["choices"] == []
    assert msgspec.json.decode(usage)["usage"]["total_tokens"] == 5


async def test_tool_calls_come_whole_and_streamed(cloud: ScriptedCloud):
    opening = CALL | {"index": 0, "function": {"name": "ping", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"host":"a"}'}}
    cloud.plays(
        answer(
            completion({"role": "assistant", "content": None, "tool_calls": [CALL]}, "tool_calls")
        )
    )
    cloud.plays(
        *stream(
            chunk({"role": "assistant", "content": None, "tool_calls": [opening]}),
            chunk({"tool_calls": [rest]}),
            chunk({}, "tool_calls"),
        )
    )

    async with serving(openai(cloud)) as url:
        whole = await ask(url)
        streamed = data(await ask(url, stream=True))

    message = whole.json["choices"][0]["message"]
    assert message["tool_calls"] == [CALL]
    assert message["content"] is None
    assert whole.json["choices"][0]["finish_reason"] == "tool_calls"
    first = msgspec.json.decode(streamed[0])["choices"][0]["delta"]["tool_calls"][0]
    assert (first["index"], first["id"], first["function"]["name"]) == (0, "call_1", "ping")
    assert joined_arguments(streamed) == '{"host":"a"}'


# ---------------------------------------------------------------- azure


async def test_azure_is_asked_by_deployment_and_version(cloud: ScriptedCloud):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"})))

    async with serving(azure(cloud)) as url:
        response = await ask(url, brand_new=1)

    (request,) = cloud.requests
    assert request.target == (
        "/openai/deployments/some-model/chat/completions?api-version=2024-10-21"
    )
    assert request.headers["api-key"] == KEY
    assert request.json["brand_new"] == 1
    assert response.json["choices"][0]["message"]["content"] == "hi"


async def test_azure_streams(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "hi"}), chunk({}, "stop")))

    async with serving(azure(cloud)) as url:
        response = await ask(url, stream=True)

    assert data(response)[-1] == sse.DONE
    assert b'"content":"hi"' in response.content


async def test_azures_content_filter_is_told_as_a_refusal(cloud: ScriptedCloud):
    cloud.plays(error(400, "The response was filtered", "content_filter"))

    async with serving(azure(cloud)) as url:
        response = await ask(url)

    assert response.status == 400
    assert response.json["error"]["code"] == "content_filter"


# ---------------------------------------------------------------- anthropic


def said_by_anthropic(*content: object, stop: str) -> bytes:
    """A whole answer of Anthropic's Messages API."""
    return answer(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "some-model",
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    )


def anthropic_event(type: str, **fields: object) -> bytes:
    body = msgspec.json.encode({"type": type} | fields)
    return b"event: " + type.encode() + b"\ndata: " + body + b"\n\n"


def streamed_by_anthropic(block: object, *deltas: object, stop: str) -> list[bytes]:
    """The events of an answer with one block of content."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "some-model",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    ended = {"stop_reason": stop, "stop_sequence": None}
    return [
        anthropic_event("message_start", message=message),
        anthropic_event("content_block_start", index=0, content_block=block),
        *(anthropic_event("content_block_delta", index=0, delta=delta) for delta in deltas),
        anthropic_event("content_block_stop", index=0),
        anthropic_event("message_delta", delta=ended, usage={"output_tokens": 2}),
        anthropic_event("message_stop"),
    ]


def without_done(*events: bytes) -> list[object]:
    """A stream that ends as Anthropic's does: cleanly, and without `[DONE]`."""
    return [*stream(*events, done=False), b"0\r\n\r\n"]


async def test_anthropic_answers_in_openais_form(cloud: ScriptedCloud):
    cloud.plays(said_by_anthropic({"type": "text", "text": "hi"}, stop="end_turn"))

    async with serving(anthropic(cloud)) as url:
        response = await ask(url)

    (request,) = cloud.requests
    assert request.target == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert response.json["model"] == "gpt-4o"
    assert response.json["choices"][0]["message"]["content"] == "hi"
    assert response.json["choices"][0]["finish_reason"] == "stop"
    assert response.json["usage"]["total_tokens"] == 5


async def test_field_that_anthropic_does_not_know_is_told(cloud: ScriptedCloud):
    cloud.plays(said_by_anthropic({"type": "text", "text": "hi"}, stop="end_turn"))

    async with serving(anthropic(cloud)) as url:
        response = await ask(url, metadata={"a": "b"}, brand_new=1)

    assert response.status == 400
    assert response.json["error"]["param"] == "brand_new"
    assert cloud.requests == []


async def test_notes_for_openai_are_left_out_for_anthropic(cloud: ScriptedCloud):
    cloud.plays(said_by_anthropic({"type": "text", "text": "hi"}, stop="end_turn"))

    async with serving(anthropic(cloud)) as url:
        response = await ask(url, metadata={"a": "b"})

    assert response.status == 200
    assert {"metadata", "extra_body"}.isdisjoint(cloud.requests[0].json)


async def test_anthropics_tool_calls_come_as_openais(cloud: ScriptedCloud):
    use = {"type": "tool_use", "id": "call_1", "name": "ping", "input": {"host": "a"}}
    cloud.plays(said_by_anthropic(use, stop="tool_use"))
    cloud.plays(
        *without_done(
            *streamed_by_anthropic(
                use | {"input": {}},
                {"type": "input_json_delta", "partial_json": '{"host":'},
                {"type": "input_json_delta", "partial_json": '"a"}'},
                stop="tool_use",
            )
        )
    )

    async with serving(anthropic(cloud)) as url:
        whole = await ask(url)
        streamed = data(await ask(url, stream=True))

    assert cloud.requests[0].json["tools"][0]["name"] == "ping"
    (call,) = whole.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "ping"
    assert msgspec.json.decode(call["function"]["arguments"]) == {"host": "a"}
    assert msgspec.json.decode(joined_arguments(streamed)) == {"host": "a"}
    assert msgspec.json.decode(streamed[-2])["choices"][0]["finish_reason"] == "tool_calls"
    assert streamed[-1] == sse.DONE


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "told", "told_code"),
    [
        (400, "some_code", 400, "some_code"),
        (404, "model_not_found", 404, "model_not_found"),
        (422, "odd", 422, "odd"),
        (429, "insufficient_quota", 429, "insufficient_quota"),
        (500, None, 502, "backend_unavailable"),
        (503, None, 502, "backend_unavailable"),
        (401, "invalid_api_key", 502, "backend_unavailable"),
        (403, "forbidden", 502, "backend_unavailable"),
        (408, None, 504, "backend_timeout"),
        (400, "context_length_exceeded", 400, "context_length_exceeded"),
    ],
)
async def test_errors_are_ours(
    cloud: ScriptedCloud,
    status: int,
    code: str | None,
    told: int,
    told_code: str,
    streamed: bool,
):
    cloud.plays(error(status, f"because of {KEY}", code, "retry-after: 7"))

    async with serving(openai(cloud)) as url:
        response = await ask(url, stream=streamed)

    assert (response.status, response.json["error"]["code"]) == (told, told_code)
    assert len(cloud.requests) == 1


async def test_keys_stay_out_of_what_clients_are_told(cloud: ScriptedCloud):
    cloud.plays(error(401, f"Incorrect API key provided: {KEY}", "invalid_api_key"))

    async with serving(openai(cloud)) as url:
        response = await ask(url)

    assert KEY.encode() not in response.content


async def test_provider_without_room_says_when_to_come_back(cloud: ScriptedCloud):
    cloud.plays(error(429, "slow down", None, "retry-after: 7"))

    async with serving(openai(cloud)) as url:
        response = await ask(url)

    assert response.headers["retry-after"] == "7"


async def test_message_of_a_refusal_is_the_providers(cloud: ScriptedCloud):
    cloud.plays(error(400, "messages.0 is odd", "odd"))

    async with serving(openai(cloud)) as url:
        response = await ask(url)

    assert response.json["error"]["message"] == "messages.0 is odd"


async def test_anthropics_refusal_is_told_in_its_words(cloud: ScriptedCloud):
    about = {"type": "invalid_request_error", "message": "max_tokens: too many"}
    cloud.plays(answer({"type": "error", "error": about}, status=400))

    async with serving(anthropic(cloud)) as url:
        response = await ask(url)

    assert response.status == 400
    assert response.json["error"]["message"] == "max_tokens: too many"


async def test_anthropics_overload_is_ours(cloud: ScriptedCloud):
    about = {"type": "overloaded_error", "message": "Overloaded"}
    cloud.plays(answer({"type": "error", "error": about}, status=529))

    async with serving(anthropic(cloud)) as url:
        response = await ask(url)

    assert response.status == 502


async def test_server_that_is_down_is_unavailable():
    async with serving(config("openai", "http://127.0.0.1:1/v1")) as url:
        response = await ask(url)

    assert response.json["error"]["code"] == "backend_unavailable"


@pytest.mark.parametrize("streamed", [False, True])
async def test_silent_server_times_out(cloud: ScriptedCloud, streamed: bool):
    cloud.plays(Pause(60))

    async with serving(openai(cloud, "silence_s: 0.2\n    answer_s: 0.2")) as url:
        response = await ask(url, stream=streamed)

    assert response.json["error"]["code"] == "backend_timeout"


async def test_stream_that_goes_silent_ends_with_an_error(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "h"}), Pause(60)))

    async with serving(openai(cloud, "silence_s: 0.3")) as url:
        response = await ask(url, stream=True)

    assert msgspec.json.decode(data(response)[-1])["error"]["code"] == "backend_timeout"


@pytest.mark.parametrize("end", [[Cut()], [b"0\r\n\r\n"]])
async def test_stream_that_is_cut_does_not_look_whole(cloud: ScriptedCloud, end: list[object]):
    begun = stream(chunk({"role": "assistant", "content": "h"}), Pause(0.2), done=False)
    cloud.plays(*begun, *end)

    async with serving(openai(cloud)) as url:
        response = await ask(url, stream=True)

    assert msgspec.json.decode(data(response)[-1])["error"]["code"] == "backend_unavailable"
    assert b"stop" not in response.content


async def test_answer_that_is_none_is_unavailable(cloud: ScriptedCloud):
    cloud.plays(answer(b"<html>Sorry</html>", content_type="text/html"))

    async with serving(openai(cloud)) as url:
        response = await ask(url)

    assert response.status == 502


@pytest.mark.parametrize("streamed", [False, True])
async def test_client_that_leaves_stops_the_provider(cloud: ScriptedCloud, streamed: bool):
    begin = head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
    cloud.plays(*([begin] if streamed else []), Pause(60))

    async with serving(openai(cloud)) as url:
        asking = asyncio.ensure_future(ask(url, stream=streamed))
        await cloud.arrived.wait()
        await asyncio.sleep(0.3)
        asking.cancel()

        async with asyncio.timeout(5):
            await cloud.abandoned.wait()


async def test_client_that_leaves_within_a_stream_stops_the_provider(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "h"}), Pause(60)))

    async with serving(openai(cloud)) as url:
        events = events_of(url)
        await anext(events)
        await events.aclose()

        async with asyncio.timeout(5):
            await cloud.abandoned.wait()


# ---------------------------------------------------------------- the library itself


async def test_library_is_mute(cloud: ScriptedCloud, caplog: pytest.LogCaptureFixture):
    cloud.plays(answer(completion({"role": "assistant", "content": "my answer"})))
    cloud.plays(error(400, "my complaint", "odd"))

    with caplog.at_level(logging.DEBUG):
        async with serving(openai(cloud)) as url:
            await ask(url, messages=[{"role": "user", "content": "my prompt"}])
            await ask(url, messages=[{"role": "user", "content": "my prompt"}])

    assert litellm.telemetry is False
    assert litellm.callbacks == litellm.success_callback == litellm.failure_callback == []
    assert "my prompt" not in caplog.text
    assert "my answer" not in caplog.text
    assert KEY not in caplog.text
