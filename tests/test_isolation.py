"""What one tenant could do to learn of another, and that none of it works.

Tenant A (`ours`) tries; tenant B (`theirs`) has a domain with a tool and an adapter of its own, has
asked, and been answered. Nothing that A gets names anything of B's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from proxy.config import parse
from proxy.errors import BadConfig
from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import ScriptedCloud, completion
from tests.serving import serving_with, settings
from tests.wire import Response, ask, cloud_backend, send

OURS = {"authorization": "Bearer key-of-tenant-ours-1234"}
THEIRS = {"authorization": "Bearer key-of-tenant-theirs-12"}
ADMIN = {"authorization": "Bearer key-of-the-operator-123"}
SECRETS = ("theirs", "their_tool", "their-model", "their_domain", "THEIR ANSWER")
"""What must not be in anything that A gets."""
_TOOL = {"type": "function", "function": {"name": "their_tool", "parameters": {"type": "object"}}}
_HI = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
EXTRA = """
auth:
  keys:
    - {key: key-of-tenant-ours-1234, tenant: ours, name: app, models: [gpt-4o]}
    - {key: key-of-tenant-theirs-12, tenant: theirs, name: app}
    - {key: key-of-the-operator-123, tenant: ops, name: ops, admin: true}
"""


def config():

    text = (
        "version: 1\nmodels: [gpt-4o, their-model]\n"
        "backends: {cloud: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}\n"
        "domains:\n"
        "  all: {plan: [cloud], cache: {}}\n"
        "  their_domain: {plan: [cloud], tools: [their_tool], tenants: [theirs], cache: {}}\n"
        "defaults: {tools: all, chat: all}\n" + EXTRA
    )
    return parse(text, Path("/nowhere"), {})


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def url(cloud: ScriptedCloud, sink: MemorySink) -> AsyncIterator[str]:
    """A proxy whose tenant B has been answered by the cloud; from then on it answers otherwise."""
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "THEIR ANSWER"})))
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "an answer"})))
    async with serving_with(config(), cloud_backend(cloud), sink=sink) as base_url:
        said = await ask(base_url, THEIRS | {"x-request-id": "req-1"}, **_HI, tools=[_TOOL])
        assert said.headers["x-headrace-domain"] == "their_domain"
        yield base_url


def tells_nothing(response: Response, sent: str = "") -> None:
    """Nothing of B's but what A said itself, and is told back."""
    said = response.content.decode() + "".join(f"{k}: {v}\n" for k, v in response.headers.items())
    assert [secret for secret in SECRETS if secret in said and secret not in sent] == []


def attempt(method: str, path: str, body: object = None, status: int = 403, **headers: str):
    return pytest.param(
        method, path, body, status, headers, id=f"{method} {path} {body or headers}"[:70]
    )


ATTEMPTS = [
    attempt("GET", "/v1/models", status=200),
    attempt("GET", "/v1/models/their-model", status=404),
    attempt("GET", "/v1/models/nonsense", status=404),
    attempt("GET", "/ready", status=200),
    attempt("GET", "/health", status=200),
    attempt("POST", "/v1/chat/completions", _HI | {"model": "their-model"}, 404),
    attempt("POST", "/v1/chat/completions", _HI | {"model": "nonsense"}, 404),
    attempt("POST", "/v1/completions", {"model": "their-model", "prompt": "x"}, 404),
    attempt("POST", "/v1/embeddings", {"model": "their-model", "input": "x"}, 404),
    attempt("POST", "/openai/deployments/their-model/chat/completions", _HI, 404),
    attempt("POST", "/v1/chat/completions", _HI, **{"x-headrace-adapter": "their_domain-v1"}),
    attempt("POST", "/v1/chat/completions", _HI, **{"x-headrace-adapter": "nonsense"}),
    attempt("POST", "/v1/chat/completions", _HI, **{"x-headrace-backend": "nonsense"}),
    attempt("POST", "/v1/chat/completions", _HI, **{"x-headrace-fallback": "1"}),
    attempt("POST", "/v1/chat/completions", _HI | {"store": True}),
    attempt("GET", "/v1/chat/completions"),
    attempt("GET", "/v1/chat/completions/chatcmpl-cloud"),
    attempt("GET", "/v1/chat/completions/chatcmpl-cloud/messages"),
    attempt("DELETE", "/v1/chat/completions/chatcmpl-cloud"),
    attempt("GET", "/v1/responses/resp_1"),
    attempt("POST", "/v1/responses/resp_1/cancel"),
    attempt("POST", "/v1/responses", {"model": "gpt-4o", "previous_response_id": "resp_1"}),
    attempt("POST", "/v1/responses", {"model": "gpt-4o", "conversation": "conv_1"}),
    attempt("POST", "/v1/responses", {"model": "gpt-4o", "prompt": {"id": "pmpt_1"}}),
    attempt("GET", "/v1/conversations/conv_1"),
    attempt("GET", "/v1/files"),
    attempt("GET", "/v1/files/file-1/content"),
    attempt("POST", "/v1/files"),
    attempt("GET", "/v1/batches"),
    attempt("GET", "/v1/fine_tuning/jobs"),
    attempt("GET", "/v1/vector_stores"),
    attempt("GET", "/v1/assistants"),
    attempt("GET", "/v1/organization/usage/completions"),
    attempt("GET", "/openai/files"),
    attempt("GET", "/v1/anything"),
    attempt("POST", "/v1/audio/speech", {"model": "their-model"}),
    attempt("GET", "/metrics"),
    attempt("GET", "/dashboard"),
    attempt("GET", "/dashboard/agreement"),
    attempt("GET", "/dashboard/adapters"),
    attempt("GET", "/dashboard/runs"),
    attempt("GET", "/dashboard/run?domain=their_domain&id=1"),
    attempt("GET", "/dashboard/exchanges"),
    attempt("GET", "/dashboard/exchanges?part=list"),
    attempt("GET", "/dashboard/exchange?id=chatcmpl-cloud&tenant=theirs"),
    attempt("GET", "/dashboard/live"),
    attempt("GET", "/dashboard/live.json"),
    attempt("GET", "/dashboard/traffic"),
    attempt("GET", "/dashboard/savings"),
    attempt("GET", "/dashboard/nonsense"),
    attempt("GET", "/dashboard/login", status=200),
    attempt("POST", "/dashboard/login"),
    attempt("POST", "/dashboard/logout"),
    attempt("POST", "/dashboard/feedback"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "headers"), ATTEMPTS)
async def test_attempt_is_refused_and_told_nothing(
    url: str, cloud: ScriptedCloud, method, path, body, status, headers
):
    content = b"" if body is None else msgspec.json.encode(body)

    response = await send(method, url.replace("/v1", "") + path, content, OURS | headers)

    assert response.status == status
    tells_nothing(response, f"{path}{body}")
    assert len(cloud.requests) == 1


async def test_existing_and_other_names_are_answered_alike(url: str):
    """The same words but for the name: there is nothing to be told apart by."""
    theirs, none = "their-model", "some-model7"
    answers = [
        (await send("GET", f"{url}/models/{name}", headers=OURS)).json["error"]["message"]
        for name in (theirs, none)
    ]

    assert answers[0].replace(theirs, none) == answers[1]


async def test_tool_of_another_tenant_s_domain_is_an_unknown_tool(url: str):
    response = await ask(url, OURS, **_HI, tools=[_TOOL])

    assert response.headers["x-headrace-domain"] == "all"
    tells_nothing(response)


async def test_cache_gives_no_answer_of_another_tenant(url: str, cloud: ScriptedCloud):
    response = await ask(url, OURS, **_HI, tools=[_TOOL])

    assert response.headers["x-headrace-cache"] == "miss"
    assert response.json["choices"][0]["message"]["content"] == "an answer"
    assert len(cloud.requests) == 2


@pytest.mark.parametrize("target", ["exchange_id", "conversation_id"])
async def test_feedback_is_taken_alike_whether_or_not_there_is_such_a_thing(url: str, target: str):
    for id in ("chatcmpl-cloud", "chatcmpl-nonsense"):
        body = msgspec.json.encode({"kind": "boolean", "value": False, target: id})
        response = await send("POST", f"{url}/feedback", body, OURS)

        assert (response.status, set(response.json)) == (200, {"id", "object"})
        tells_nothing(response)


async def test_records_are_kept_apart_whatever_the_client_names(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "x"})))
    sink = MemorySink()
    async with serving_with(config(), cloud_backend(cloud), sink=sink) as url:
        for headers in (THEIRS, OURS):
            same = {"x-request-id": "req-1", "x-headrace-conversation": "conv-1"}
            await ask(url, headers | same, **_HI, tools=None)
            body = {"kind": "comment", "value": "x", "conversation_id": "conv-1"}
            await send("POST", f"{url}/feedback", msgspec.json.encode(body), headers)

    kept = [(type(one), one.tenant) for one in (*sink.exchanges, *sink.feedback)]
    assert sorted(kept, key=str) == sorted(
        [(Exchange, "ours"), (Exchange, "theirs"), (Feedback, "ours"), (Feedback, "theirs")],
        key=str,
    )


async def test_operator_sees_what_others_do_not(url: str):
    ready = await send("GET", url.replace("/v1", "/ready"), headers=ADMIN)
    models = await send("GET", f"{url}/models", headers=THEIRS)

    assert "their_domain" in ready.json["domains"]
    assert "their-model" in [model["id"] for model in models.json["data"]]


async def test_domain_that_a_key_was_not_made_for_is_refused():
    extra = "auth: {keys: [{key: key-of-tenant-ours-1234, domains: [other]}]}"
    async with serving_with(settings("cloud", extra=extra)) as url:
        response = await ask(url, OURS)

    assert (response.status, response.json["error"]["code"]) == (403, "forbidden")


def test_defaults_belong_to_nobody():
    with pytest.raises(BadConfig, match=r"\$\.defaults\.tools: 'all' belongs to tenants"):
        settings("cloud", policy="tenants: [acme]")
