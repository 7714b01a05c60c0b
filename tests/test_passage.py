"""Completions and embeddings: the cloud's, under the names that clients know."""

from __future__ import annotations

import msgspec
import pytest
from openai import AsyncOpenAI

from proxy.backends.base import Text
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import ScriptedCloud, stream
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import cloud_backend, send

EMBEDDED = {
    "object": "list",
    "model": "bge",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}
COMPLETED = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "qwen",
    "choices": [{"index": 0, "text": "hi", "finish_reason": "stop", "logprobs": None}],
}
BODY = b'{ "model":"gpt-4o", "input":"hi","x":1.0 }'


async def test_official_client_gets_an_embedding_under_its_own_name(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(EMBEDDED))
    backend = cloud_backend(cloud, {"gpt-4o": "bge"})

    async with serving_with(settings("cloud"), backend) as url:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        answer = await client.embeddings.create(model="gpt-4o", input="hi", encoding_format="float")

    assert (answer.model, answer.data[0].embedding) == ("gpt-4o", [0.5, 1.0])
    assert (cloud.requests[0].target, cloud.requests[0].json["model"]) == ("/v1/embeddings", "bge")


async def test_official_client_streams_a_completion(cloud: ScriptedCloud):
    cloud.plays(*stream(COMPLETED))

    async with serving_with(settings("cloud"), cloud_backend(cloud, {"gpt-4o": "qwen"})) as url:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        answer = await client.completions.create(model="gpt-4o", prompt="say", stream=True)
        chunks = [chunk async for chunk in answer]

    assert [(chunk.model, chunk.choices[0].text) for chunk in chunks] == [("gpt-4o", "hi")]


async def test_without_another_name_no_byte_changes(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(b'{ "model": "x" }'))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await send("POST", f"{url}/embeddings", BODY)

    assert cloud.requests[0].body == BODY
    assert response.content == b'{ "model": "x" }'
    assert response.headers["content-length"] == "16"


async def test_local_engine_leaves_them_to_the_cloud_and_says_so(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(EMBEDDED))
    local, sink = Engine("local", [Text("no"), finish()]), MemorySink()

    async with serving_with(
        settings("local", "cloud"), local, cloud_backend(cloud), sink=sink
    ) as url:
        response = await send("POST", f"{url}/embeddings", BODY)

    assert response.headers["x-headrace-fallback-reason"] == "unsupported_embeddings"
    assert response.headers["x-headrace-backend"] == "cloud"
    assert (sink.exchanges[0].endpoint, sink.exchanges[0].model) == ("/embeddings", "gpt-4o")
    assert local.asks == []


@pytest.mark.parametrize("path", ["completions", "embeddings"])
async def test_without_a_cloud_the_remedy_is_told(path: str):
    async with serving_with(settings("local"), Engine("local", [])) as url:
        response = await send("POST", f"{url}/{path}", BODY)

    error = response.json["error"]
    assert (response.status, error["code"]) == (400, "unsupported_parameter")
    assert "'openai'" in error["message"]


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b'{"model":"gpt-9"}', 404, "model"),
        (b'{"input":"hi"}', 400, "model"),
        (b'{"model":1}', 400, "$.model"),
        (b'{"model":"gpt-4o","model":"x"}', 400, "$.model"),
        (b"[]", 400, None),
    ],
)
async def test_malformed_request_is_told(
    cloud: ScriptedCloud, content: bytes, status: int, param: str | None
):
    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await send("POST", f"{url}/embeddings", content)

    assert (response.status, response.json["error"]["param"]) == (status, param)
    assert cloud.requests == []


async def test_models_of_a_streamed_response_are_put_back(cloud: ScriptedCloud):
    cloud.plays(*stream({"type": "response.created", "response": {"model": "qwen", "x": 1}}))

    async with serving_with(settings("cloud"), cloud_backend(cloud, {"gpt-4o": "qwen"})) as url:
        response = await send("POST", f"{url}/completions", BODY)

    event = response.content.split(b"\n\n")[0].removeprefix(b"data: ")
    assert msgspec.json.decode(event)["response"] == {"model": "gpt-4o", "x": 1}
