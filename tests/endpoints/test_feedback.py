"""Feedback is appended to the record, as its caller's tenant."""

from __future__ import annotations

import msgspec
import pytest

from proxy.protocol.exchange import Answer
from proxy.sinks.memory import MemorySink
from tests.serving import Engine, finish, serving, serving_with, settings
from tests.wire import Response, send

KEYS = "auth: {keys: [{key: sixteen-characters, tenant: acme, name: app}]}"
KEY = {"authorization": "Bearer sixteen-characters"}


async def give(url: str, headers: dict[str, str] | None = None, **fields: object) -> Response:
    given = {"exchange_id": "chatcmpl-1", "kind": "boolean", "value": True} | fields
    content = {name: value for name, value in given.items() if value is not None}
    return await send("POST", f"{url}/feedback", msgspec.json.encode(content), headers)


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("boolean", False, False),
        ("float", 0.5, 0.5),
        ("float", 4, 4.0),
        ("comment", "too long", "too long"),
        ("demonstration", {"role": "assistant", "content": "Paris."}, Answer(text="Paris.")),
    ],
)
async def test_each_kind_is_kept(kind: str, value: object, kept: object):
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", [finish()]), sink=sink) as url:
        response = await give(url, kind=kind, value=value, name="quality")

    (feedback,) = sink.feedback
    assert (response.status, response.json["id"]) == (200, feedback.id)
    assert (feedback.exchange, feedback.name, feedback.value) == ("chatcmpl-1", "quality", kept)


async def test_demonstration_may_be_a_call():
    sink = MemorySink()
    call = {"function": {"name": "ping", "arguments": '{"host":"a"}'}}

    async with serving_with(settings("local"), Engine("local", [finish()]), sink=sink) as url:
        await give(url, kind="demonstration", value={"content": None, "tool_calls": [call]})

    assert sink.feedback[0].value.tool_calls[0].function.name == "ping"


async def test_tenant_is_the_key_s_and_nothing_the_client_says():
    sink = MemorySink()
    config = settings("local", extra=KEYS)

    async with serving_with(config, Engine("local", [finish()]), sink=sink) as url:
        refused = await give(url)
        forged = await give(url, KEY, tenant="other")
        await give(url, KEY)

    assert (refused.status, forged.status) == (401, 400)
    assert [(one.tenant, one.caller) for one in sink.feedback] == [("acme", "app")]


@pytest.mark.parametrize(
    "fields",
    [
        {"value": "yes"},
        {"value": None},
        {"kind": "stars"},
        {"exchange_id": None},
        {"conversation_id": "both"},
        {"kind": "float", "value": True},
        {"kind": "demonstration", "value": "Paris"},
    ],
)
async def test_what_makes_no_sense_is_refused(fields: dict[str, object]):
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", [finish()]), sink=sink) as url:
        response = await give(url, **fields)

    assert response.status == 400
    assert sink.feedback == []


async def test_without_a_record_there_is_nothing_to_judge():
    async with serving(settings("cloud")) as url:
        response = await give(url)

    assert response.status == 404
