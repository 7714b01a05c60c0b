from __future__ import annotations

import msgspec
import pytest

from proxy.backends.base import Text
from proxy.errors import BadRequest
from proxy.gateway import parse
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import ScriptedCloud, completion
from tests.serving import Engine, call, finish, serving_with, settings, text
from tests.wire import ask, body, cloud_backend, send

KEY = "0123456789abcdef"
GOOD = [call("ping", '{"host":"a"}'), finish()]
BAD = [call("ping", '{"host":1}'), finish()]


async def test_exchange_holds_the_request_and_the_answer():
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", GOOD), sink=sink) as url:
        response = await ask(
            url, headers={"x-request-id": "trace-1", "x-stainless-retry-count": "1"}
        )

    (exchange,) = sink.exchanges
    assert exchange.id == response.json["id"]
    assert (exchange.request_id, exchange.retries) == ("trace-1", 1)
    assert (exchange.domain, exchange.model, exchange.status) == ("all", "gpt-4o", 200)
    assert (exchange.tenant, exchange.caller) == ("default", "anonymous")
    assert msgspec.json.decode(exchange.request) == body()
    assert exchange.tools_fingerprint.startswith("sha256:")
    assert exchange.outcome == "completed"
    assert exchange.attempts[0].answer.tool_calls[0].function.name == "ping"


async def test_exchange_of_a_rescued_request_holds_both_attempts(cloud: ScriptedCloud):
    sink = MemorySink()
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hello"})))
    local = Engine("local", BAD)

    async with serving_with(
        settings("local", "cloud"), local, cloud_backend(cloud), sink=sink
    ) as url:
        await ask(url)

    (exchange,) = sink.exchanges
    attempts = [(a.kind, a.backend, a.outcome, a.reason) for a in exchange.attempts]
    assert attempts == [
        ("primary", "local", "invalid", "schema_violation"),
        ("repair", "local", "invalid", "schema_violation"),
        ("fallback", "cloud", "completed", None),
    ]
    assert exchange.attempts[0].answer.tool_calls[0].function.arguments == '{"host":1}'
    assert exchange.id == "chatcmpl-cloud"


async def test_observed_failure_reaches_the_client_and_the_record():
    sink = MemorySink()
    observing = settings("local", verify="observe")

    async with serving_with(observing, Engine("local", BAD), sink=sink) as url:
        response = await ask(url)

    assert response.json["choices"][0]["message"]["tool_calls"]
    assert (sink.exchanges[0].outcome, sink.exchanges[0].status) == ("invalid", 200)


async def test_failed_request_is_recorded_with_its_status():
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", BAD), sink=sink) as url:
        await ask(url)

    assert (sink.exchanges[0].outcome, sink.exchanges[0].status) == ("invalid", 502)


async def test_request_that_never_reached_a_backend_is_not_recorded():
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", GOOD), sink=sink) as url:
        await ask(url, model="gpt-9")
        await ask(url, n=2)

    assert sink.exchanges == []


async def test_key_names_the_caller_in_the_record():
    sink = MemorySink()
    keyed = settings("local", extra=f"auth: {{keys: [{{key: {KEY}, tenant: acme, name: shop}}]}}")

    async with serving_with(keyed, Engine("local", GOOD), sink=sink) as url:
        without = await ask(url)
        await ask(url, headers={"api-key": KEY})

    assert without.status == 401
    assert without.json["error"]["code"] == "invalid_api_key"
    assert [(e.tenant, e.caller) for e in sink.exchanges] == [("acme", "shop")]


async def test_only_an_admin_may_say_which_adapter_answers():
    keyed = settings("local", extra=f"auth: {{keys: [{{key: {KEY}}}]}}")

    async with serving_with(keyed, Engine("local", GOOD)) as url:
        refused = await ask(url, headers={"api-key": KEY, "x-headrace-adapter": "base"})

    assert refused.status == 403


async def test_chat_without_tools_is_answered_with_text():
    engine = Engine("local", [Text("Hel"), Text("lo"), finish()])

    async with serving_with(settings("local"), engine) as url:
        response = await ask(url, tools=None)

    assert response.json["choices"][0]["message"]["content"] == "Hello"


def test_offered_twice_is_told_with_its_place():
    twice = msgspec.json.encode(body(tools=body()["tools"] * 2))

    with pytest.raises(BadRequest) as caught:
        parse(twice)

    assert caught.value.param == "$.tools[1].function.name"


# ---------------------------------------------------------------- what an admin may force


@pytest.mark.parametrize(
    ("header", "backend"),
    [
        ({"x-headrace-backend": "spare"}, "spare"),
        ({"x-headrace-fallback": "yes"}, "spare"),
        ({}, "local"),
    ],
)
async def test_admin_may_force_who_answers(header, backend):
    engines = [Engine(name, [*text("hi"), finish()]) for name in ("local", "spare")]

    async with serving_with(settings("local", "spare"), *engines) as url:
        response = await ask(url, header)

    assert response.headers["x-headrace-backend"] == backend


@pytest.mark.parametrize(
    "name", ["x-headrace-adapter", "x-headrace-backend", "x-headrace-fallback"]
)
async def test_others_may_not(name):
    keyed = settings("local", extra=f"auth: {{keys: [{{key: {'k' * 20}}}]}}")

    async with serving_with(keyed, Engine("local", [*text("hi"), finish()])) as url:
        response = await ask(url, {name: "local", "authorization": f"Bearer {'k' * 20}"})

    assert (response.status, response.json["error"]["type"]) == (403, "permission_error")


async def test_backend_that_does_not_exist_cannot_be_forced():
    async with serving_with(settings("local"), Engine("local", [finish()])) as url:
        response = await ask(url, {"x-headrace-backend": "nobody"})

    assert response.status == 400
    assert "local" in response.json["error"]["message"]


async def test_headers_about_who_answered_can_be_left_out():
    silent = settings("local", extra="response_headers: false")

    async with serving_with(silent, Engine("local", [*text("hi"), finish()])) as url:
        response = await ask(url)

    assert not [name for name in response.headers if name.startswith("x-headrace")]
    assert "x-request-id" in response.headers


@pytest.mark.parametrize(
    ("extra", "headers", "fields", "levels"),
    [
        ("", {}, {}, ["full"]),
        ("", {"x-headrace-record": "off"}, {}, []),
        ("", {"x-headrace-record": "metadata"}, {}, ["metadata"]),
        ("", {}, {"store": False}, ["full"]),
        ("record: {directory: x, level: metadata}", {}, {}, ["metadata"]),
        ("record: {directory: x, tenants: {default: {level: 'off'}}}", {}, {}, []),
    ],
)
async def test_no_more_is_recorded_than_is_allowed(
    extra: str, headers: dict[str, str], fields: dict[str, object], levels: list[str]
):
    sink = MemorySink()
    config = settings("local", extra=extra)

    async with serving_with(config, Engine("local", GOOD), sink=sink) as url:
        response = await ask(url, headers, **fields)

    assert response.status == 200
    assert [exchange.level for exchange in sink.exchanges] == levels


async def test_conversation_is_what_the_client_says_or_what_its_first_messages_make():
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", GOOD), sink=sink) as url:
        await ask(url, {"x-headrace-conversation": "mine"})
        await ask(url)
        await ask(url)

    named, first, second = (exchange.conversation for exchange in sink.exchanges)
    assert named == "mine"
    assert first == second != named


# ---------------------------------------------------------------- comparisons


SPLIT = "split: {local: 0.5, cloud: 0.5}"
SAID = scripted.answer(completion({"role": "assistant", "content": "hello"}))


async def test_side_of_a_split_is_told_recorded_and_kept(cloud: ScriptedCloud):
    cloud.plays(SAID)
    sink = MemorySink()
    config = settings("local", "cloud", policy=SPLIT)

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud), sink=sink) as url:
        told = [
            (await ask(url, headers={"x-headrace-conversation": f"c-{number % 10}"})).headers
            for number in range(20)
        ]

    sides = [one["x-headrace-assigned"] for one in told]
    assert set(sides) == {"split:local", "split:cloud"}
    assert sides[:10] == sides[10:]
    assert [f"split:{one['x-headrace-backend']}" for one in told] == sides
    assert [exchange.assigned for exchange in sink.exchanges] == sides


async def test_all_of_a_caller_may_stay_on_one_side(cloud: ScriptedCloud):
    cloud.plays(SAID)
    config = settings("local", "cloud", policy=f"{SPLIT}, assign_by: caller")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        told = [
            (await ask(url, headers={"x-headrace-conversation": f"c-{number}"})).headers
            for number in range(10)
        ]

    assert len({one["x-headrace-assigned"] for one in told}) == 1


async def test_side_that_fails_is_recorded_as_the_side_that_it_was(cloud: ScriptedCloud):
    cloud.plays(SAID)
    sink = MemorySink()
    config = settings("local", "cloud", policy="split: {local: 0.999, cloud: 0.001}")

    async with serving_with(config, Engine("local", BAD), cloud_backend(cloud), sink=sink) as url:
        response = await ask(url)

    assert response.headers["x-headrace-backend"] == "cloud"
    assert sink.exchanges[0].assigned == "split:local"


async def test_response_is_put_on_a_side_too(cloud: ScriptedCloud):
    cloud.plays(scripted.answer({"id": "resp_1", "object": "response", "output": []}))
    sink = MemorySink()
    config = settings("local", "cloud", policy="split: {local: 0.001, cloud: 0.999}")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud), sink=sink) as url:
        asked = msgspec.json.encode({"model": "gpt-4o", "input": "Ping a."})
        response = await send("POST", f"{url}/responses", asked)

    assert cloud.requests[0].target == "/v1/responses"
    assert response.headers["x-headrace-assigned"] == "split:cloud"
    assert [exchange.assigned for exchange in sink.exchanges] == ["split:cloud"]
