"""An Azure resource: where requests go, as whom, and that all else is as OpenAI's."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from proxy import sse
from proxy.config import Config, parse
from proxy.errors import BadConfig, MissingExtra
from tests.scripted import (
    Cut,
    ScriptedCloud,
    answer,
    chunk,
    completion,
    error,
    scripted_cloud,
    stream,
)
from tests.serving import serving
from tests.wire import ask, body, send

KEY = "azure-s3cret"
HI = completion({"role": "assistant", "content": "hi"})
MANAGED = "entra: {}"


def config(cloud: ScriptedCloud, *more: str) -> Config:
    """Settings whose only backend is the resource `cloud`; a key, unless `more` says otherwise."""
    lines = "\n    ".join(more or (f"api_key: {KEY}",))
    return parse(
        f"""
version: 1
models: [gpt-4o, headrace]
backends:
  cloud:
    kind: azure
    endpoint: {cloud.base_url.removesuffix("/v1")}/
    models: {{gpt-4o: my deployment}}
    {lines}
domains: {{all: {{plan: [cloud]}}}}
defaults: {{tools: all, chat: all}}
""",
        Path("/nowhere"),
        {},
    )


# ---------------------------------------------------------------- places


async def test_chats_are_asked_by_deployment_and_version(cloud: ScriptedCloud):
    cloud.plays(answer(HI))

    async with serving(config(cloud)) as url:
        response = await ask(url, brand_new=1)

    (request,) = cloud.requests
    assert request.target == (
        "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"
    )
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert request.json == body(model="my deployment", brand_new=1)
    assert response.json["choices"] == HI["choices"]
    assert response.json["model"] == "gpt-4o"


async def test_name_that_is_not_mapped_is_the_deployments(cloud: ScriptedCloud):
    cloud.plays(answer(HI))

    async with serving(config(cloud, f"api_key: {KEY}", "api_version: 2025-01-01-preview")) as url:
        await ask(url, model="headrace")

    assert cloud.requests[0].target == (
        "/openai/deployments/headrace/chat/completions?api-version=2025-01-01-preview"
    )


async def test_without_a_version_chats_are_asked_as_all_else(cloud: ScriptedCloud):
    cloud.plays(answer(HI))

    async with serving(config(cloud, f"api_key: {KEY}", "api_version: null")) as url:
        await ask(url)

    assert cloud.requests[0].target == "/openai/v1/chat/completions"
    assert cloud.requests[0].json["model"] == "my deployment"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/embeddings", "/openai/deployments/my%20deployment/embeddings?api-version=2024-10-21"),
        ("/completions", "/openai/deployments/my%20deployment/completions?api-version=2024-10-21"),
        ("/responses", "/openai/v1/responses"),
    ],
)
async def test_what_is_no_chat_goes_where_azure_has_it(
    cloud: ScriptedCloud, path: str, target: str
):
    cloud.plays(answer({"model": "my deployment", "output": []}))
    asked = {"model": "gpt-4o", "input": "hi", "prompt": "hi"}

    async with serving(config(cloud)) as url:
        response = await send("POST", url + path, msgspec.json.encode(asked))

    assert response.status == 200
    assert cloud.requests[0].target == target
    assert cloud.requests[0].headers["api-key"] == KEY
    assert cloud.requests[0].json["model"] == "my deployment"


async def test_files_are_passed_on(cloud: ScriptedCloud):
    cloud.plays(answer({"data": []}))

    async with serving(config(cloud)) as url:
        response = await send("GET", f"{url}/files?limit=2")

    assert response.json == {"data": []}
    assert cloud.requests[0].target == "/openai/v1/files?limit=2"


# ---------------------------------------------------------------- azure's own


async def test_first_chunk_without_choices_passes(cloud: ScriptedCloud):
    findings = chunk({}) | {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    cloud.plays(*stream(findings, chunk({"role": "assistant", "content": "hi"}, "stop")))

    async with serving(config(cloud)) as url:
        response = await ask(url, stream=True)

    first, second, done = sse.EventDecoder().feed(response.content)
    assert msgspec.json.decode(first) == findings | {"model": "gpt-4o"}
    assert b'"content":"hi"' in second
    assert done == sse.DONE


async def test_content_filter_is_told_with_its_findings(cloud: ScriptedCloud):
    said = {
        "message": "The response was filtered",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    }
    cloud.plays(answer({"error": said}, status=400))

    async with serving(config(cloud)) as url:
        response = await ask(url)

    assert response.status == 400
    assert response.json["error"] == said | {"type": "invalid_request_error"}


async def test_rejected_key_is_not_shown(cloud: ScriptedCloud):
    cloud.plays(error(401, f"Access denied due to invalid subscription key {KEY}", "401"))

    async with serving(config(cloud)) as url:
        response = await ask(url)

    assert response.json["error"]["code"] == "backend_unavailable"
    assert KEY.encode() not in response.content


async def test_cut_stream_ends_with_an_error(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "h"}), Cut(), done=False))

    async with serving(config(cloud)) as url:
        response = await ask(url, stream=True)

    assert b'"code":"backend_unavailable"' in response.content


# ---------------------------------------------------------------- identities


@pytest.fixture
async def identities(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedCloud]:
    """What Azure puts beside an app, to ask for its identity's tokens."""
    async with scripted_cloud() as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", server.base_url)
        monkeypatch.setenv("IDENTITY_HEADER", "proof")
        yield server


def token(value: str, seconds: int = 3600) -> bytes:
    ends = str(int(time.time()) + seconds)
    said = {"access_token": value, "expires_on": ends, "resource": "r", "token_type": "Bearer"}
    return answer(said)


async def test_token_of_the_identity_is_sent_in_a_keys_place(
    cloud: ScriptedCloud, identities: ScriptedCloud
):
    cloud.plays(answer(HI))
    identities.plays(token("token-1"))

    async with serving(config(cloud, MANAGED)) as url:
        await ask(url)
        await ask(url)

    assert [r.headers["authorization"] for r in cloud.requests] == ["Bearer token-1"] * 2
    assert all("api-key" not in request.headers for request in cloud.requests)
    assert len(identities.requests) == 1
    assert "cognitiveservices.azure.com" in identities.requests[0].target


async def test_token_is_there_before_the_first_request(
    cloud: ScriptedCloud, identities: ScriptedCloud
):
    identities.plays(token("token-1"))

    async with serving(config(cloud, MANAGED)):
        await identities.arrived.wait()

    assert cloud.requests == []


async def test_token_that_has_ended_is_not_sent(cloud: ScriptedCloud, identities: ScriptedCloud):
    cloud.plays(answer(HI))
    identities.plays(token("token-1", seconds=-10))
    identities.plays(token("token-2"))

    async with serving(config(cloud, MANAGED)) as url:
        await identities.arrived.wait()
        response = await ask(url)

    assert response.status == 200
    assert cloud.requests[0].headers["authorization"] == "Bearer token-2"


async def test_identity_that_gets_no_token_is_an_unavailable_backend(
    cloud: ScriptedCloud, identities: ScriptedCloud
):
    identities.plays(answer({"error": "denied, because of proof"}, status=400))

    async with serving(config(cloud, MANAGED)) as url:
        response = await ask(url)

    assert response.status == 502
    assert response.json["error"]["code"] == "backend_unavailable"
    assert b"proof" not in response.content
    assert cloud.requests == []


async def test_missing_library_is_told_with_the_remedy(
    cloud: ScriptedCloud, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "azure.identity", None)

    with pytest.raises(MissingExtra, match=r"pip install 'headrace\[azure\]'"):
        async with serving(config(cloud, MANAGED)):
            pass


@pytest.mark.parametrize(
    "lines",
    [
        ("api_version: v",),
        (f"api_key: {KEY}", MANAGED),
        ("entra: {identity: client_secret, tenant_id: t}",),
    ],
)
async def test_settings_that_say_not_who_we_are_are_refused(
    cloud: ScriptedCloud, lines: tuple[str, ...]
):
    with pytest.raises(BadConfig, match=r"\$\.backends\.cloud"):
        config(cloud, *lines)
