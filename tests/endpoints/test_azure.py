from __future__ import annotations

import msgspec
import pytest
from openai import AsyncAzureOpenAI

from proxy.backends.base import Text
from proxy.endpoints.azure import Place, place
from tests import scripted
from tests.scripted import ScriptedCloud, completion
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import body, cloud_backend, send

KEY = "0123456789abcdef"
HELLO = [Text("hello"), finish()]
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "stands_for"),
    [
        (
            "/openai/deployments/gpt-4o/chat/completions",
            Place("/v1/chat/completions", "gpt-4o"),
        ),
        ("/openai/deployments/a%2Fb/audio/speech", Place("/v1/audio/speech", "a/b")),
        ("/openai/v1/files", Place("/v1/files", None)),
        ("/openai/models", Place("/v1/models", None)),
        ("/openai/", None),
    ],
)
def test_azure_path_stands_for_one_of_openai_s(path: str, stands_for: Place | None):
    assert place(path) == stands_for


async def test_official_azure_client_is_answered():
    keyed = settings("local", extra=f"auth: {{keys: [{{key: {KEY}}}]}}")

    async with serving_with(keyed, Engine("local", HELLO)) as url:
        client = AsyncAzureOpenAI(
            azure_endpoint=url.removesuffix("/v1"),
            api_key=KEY,
            api_version="2024-10-21",
            max_retries=0,
        )
        answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        models = await client.models.list()

    assert (answer.choices[0].message.content, answer.model) == ("hello", "gpt-4o")
    assert [model.id for model in models.data] == ["gpt-4o", "headrace"]


@pytest.mark.parametrize("path", ["chat/completions?api-version=2024-10-21", "chat/completions/"])
async def test_deployment_is_the_model_of_a_body_that_names_none(path: str, cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hello"})))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        base = url.removesuffix("/v1")
        response = await send(
            "POST", f"{base}/openai/deployments/gpt-4o/{path}", b'{"messages": [{"role":"user"}]}'
        )

    assert response.status == 200
    assert cloud.requests[0].json["model"] == "gpt-4o"


async def test_deployment_that_the_body_repeats_changes_no_byte(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hello"})))
    sent = b'{ "messages":[{"role":"user","content":"hi"}], "model": "gpt-4o" , "x":1.0}'

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        base = url.removesuffix("/v1")
        await send("POST", f"{base}/openai/deployments/gpt-4o/chat/completions", sent)

    assert cloud.requests[0].body == sent


async def test_newer_azure_path_needs_no_version():
    async with serving_with(settings("local"), Engine("local", HELLO)) as url:
        base = url.removesuffix("/v1")
        response = await send(
            "POST", f"{base}/openai/v1/chat/completions", msgspec.json.encode(body())
        )

    assert response.json["choices"][0]["message"]["content"] == "hello"


async def test_unknown_deployment_is_an_unknown_model():
    async with serving_with(settings("local"), Engine("local", HELLO)) as url:
        base = url.removesuffix("/v1")
        response = await send(
            "POST", f"{base}/openai/deployments/gpt-9/chat/completions", msgspec.json.encode(body())
        )

    assert (response.status, response.json["error"]["code"]) == (404, "model_not_found")
