"""A shadow makes a pair of what was said, and nothing that happens to it reaches a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.backends.settings import BackendSettings
from proxy.budget import Budget
from proxy.catalog import Catalog, Proven
from proxy.config import Config, parse
from proxy.domains import Domain
from proxy.errors import BackendUnavailable
from proxy.protocol.adapter import Adapter, read
from proxy.protocol.openai import parse_request
from proxy.protocol.segments import read_segment, segments
from proxy.recorder import Recorder
from proxy.routing import Route
from proxy.shadow import Shadows
from proxy.shadow_lane import Answered
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import Cut, Pause, ScriptedCloud, chunk, completion, scripted_cloud, stream
from tests.serving import Engine, call, finish, serving, serving_with, text
from tests.test_catalog import write_bundle
from tests.test_recording import BODY, new_recording
from tests.wire import ask, cloud_backend, events_of, send

GOOD = [call("ping", '{"host":"a"}'), finish("tool_calls")]
CALL = {"id": "c1", "type": "function", "function": {"name": "ping", "arguments": '{"host":"b"}'}}
SAID = scripted.answer(completion({"role": "assistant", "content": None, "tool_calls": [CALL]}))
STREAMED = stream(
    chunk({"role": "assistant", "content": "hi"}), chunk({}, "stop"), scripted.usage_chunk(7, 4)
)


def shadowed(directory: Path, shadow: str = "share: 1", to: str = "cloud", **more: str) -> Config:
    """Settings in which one of `local` and `cloud` answers, and the other one is its shadow."""
    first = "local" if to == "cloud" else "cloud"
    record = more.pop("record", "")
    policy = "".join(f", {name}: {value}" for name, value in more.items())
    return parse(
        "version: 1\nmodels: [gpt-4o]\n"
        "backends:\n  local: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
        "  cloud: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
        f"domains: {{all: {{plan: [{first}], shadow: {{to: {to}, {shadow}}}{policy}}}}}\n"
        "defaults: {tools: all, chat: all}\n"
        f"record: {{directory: '{directory}', {record}}}\n",
        Path("/nowhere"),
        {},
    )


async def lane(url: str, domain: str = "all", headers: dict[str, str] | None = None) -> Any:
    """What /ready says of a domain's lane."""
    ready = await send("GET", url.replace("/v1", "/ready"), headers=headers or {})
    return ready.json["shadows"][domain]


async def settled(url: str, sampled: int, domain: str = "all") -> Any:
    """The lane, once so many requests came to it and none is under way."""
    async with asyncio.timeout(60):
        while True:
            told = await lane(url, domain)
            done = sum(told["outcomes"].values()) + sum(told["dropped"].values())
            if told["sampled"] >= sampled and done == told["sampled"] and not told["in_flight"]:
                return told
            await asyncio.sleep(0.02)


# ---------------------------------------------------------------- pairs


async def test_cloud_s_answer_is_paired_with_the_local_one(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(SAID)
    sink, local = MemorySink(), Engine("local", GOOD)

    async with serving_with(shadowed(tmp_path), local, cloud_backend(cloud), sink=sink) as url:
        response = await ask(url, headers={"x-headrace-conversation": "trip-1"})
        await settled(url, 1)

    (exchange,), (shadow,) = sink.exchanges, sink.shadows
    assert response.headers["x-headrace-backend"] == "local"
    assert (shadow.exchange, shadow.tenant, shadow.caller) == (exchange.id, "default", "anonymous")
    assert (shadow.conversation, shadow.domain) == ("trip-1", "all")
    assert [a.kind for a in exchange.attempts] == ["primary"]
    attempt = shadow.attempt
    assert (attempt.kind, attempt.backend, attempt.outcome) == ("shadow", "cloud", "completed")
    assert attempt.answer.tool_calls[0].function.arguments == '{"host":"b"}'
    assert (attempt.usage_source, attempt.cost_usd) == ("reported", pytest.approx(2.75e-5))
    assert msgspec.json.decode(cloud.requests[0].body) == msgspec.json.decode(exchange.request)


async def test_local_answer_is_verified_and_paired_with_the_cloud_s(
    cloud: ScriptedCloud, tmp_path: Path
):
    cloud.plays(SAID)
    sink = MemorySink()
    local = Engine("local", [call("ping", '{"host":["a","b"]}'), finish("tool_calls")])

    async with serving_with(
        shadowed(tmp_path, to="local"), local, cloud_backend(cloud), sink=sink
    ) as url:
        await ask(url)
        told = await settled(url, 1)

    (exchange,), (shadow,) = sink.exchanges, sink.shadows
    assert shadow.exchange == exchange.id == "chatcmpl-cloud"
    assert (shadow.attempt.outcome, shadow.attempt.reason) == ("invalid", "schema_violation")
    assert local.asks[0].constrain
    assert told["outcomes"] == {"invalid": 1}


@pytest.mark.parametrize("to", ["cloud", "local"])
async def test_streams_have_shadows_too(cloud: ScriptedCloud, tmp_path: Path, to: str):
    cloud.plays(*STREAMED)
    sink = MemorySink()
    local = Engine("local", [*text("h", "i"), finish()])

    async with serving_with(
        shadowed(tmp_path, to=to), local, cloud_backend(cloud), sink=sink
    ) as url:
        events = [event async for event in events_of(url)]
        await settled(url, 1)

    (shadow,) = sink.shadows
    assert shadow.exchange == sink.exchanges[0].id
    assert (shadow.attempt.backend, shadow.attempt.answer.text) == (to, "hi")
    assert shadow.attempt.first_byte_s is not None
    assert not [event for event in events if event.get("usage") and to == "cloud"]


async def test_usage_of_a_streamed_shadow_is_asked_for(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(*STREAMED)
    sink = MemorySink()

    async with serving_with(
        shadowed(tmp_path), Engine("local", GOOD), cloud_backend(cloud), sink=sink
    ) as url:
        _ = [event async for event in events_of(url)]
        await settled(url, 1)

    assert cloud.requests[0].json["stream_options"] == {"include_usage": True}
    usage = sink.shadows[0].attempt.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 4)


async def test_responses_that_a_local_engine_answers_have_shadows(
    cloud: ScriptedCloud, tmp_path: Path
):
    cloud.plays(SAID)
    sink = MemorySink()

    async with serving_with(
        shadowed(tmp_path),
        Engine("local", [*text("hi"), finish()]),
        cloud_backend(cloud),
        sink=sink,
    ) as url:
        asked = msgspec.json.encode({"model": "gpt-4o", "input": "Ping a."})
        response = await send("POST", f"{url}/responses", asked)
        await settled(url, 1)

    assert response.status == 200
    assert sink.shadows[0].exchange == sink.exchanges[0].id
    assert cloud.requests[0].target == "/v1/chat/completions"


async def test_pair_has_the_same_pseudonyms(cloud: ScriptedCloud, tmp_path: Path):
    said = completion({"role": "assistant", "content": "mail anna@example.com"})
    cloud.plays(scripted.answer(said))

    async with scripted_cloud() as other:
        other.plays(scripted.answer(said))
        async with serving(between(tmp_path, cloud, other)) as url:
            await ask(url, tools=None)
            await settled(url, 1)

    (path,) = segments(tmp_path)
    exchange, shadow = read_segment(path)
    assert exchange.attempts[0].answer.text.startswith("mail ")
    assert "anna" not in exchange.attempts[0].answer.text
    assert shadow.attempt.answer == exchange.attempts[0].answer


def between(directory: Path, first: ScriptedCloud, other: ScriptedCloud) -> Config:
    """Settings in which one real cloud is the other's shadow."""
    backends = {
        name: {"kind": "openai", "base_url": one.base_url}
        for name, one in (("near", first), ("cloud", other))
    }
    config = shadowed(directory)
    domains = {"all": msgspec.structs.replace(config.domains["all"], plan=["near"])}
    return msgspec.structs.replace(
        config,
        domains=domains,
        backends=msgspec.convert(backends, dict[str, BackendSettings]),
    )


# ---------------------------------------------------------------- isolation


REFUSED = (scripted.error(503, "down", None),)
GARBAGE = (scripted.answer(b"{not json"),)
CUT = (scripted.head(200, "content-type: application/json", "content-length: 100"), Cut())
SLOW = (Pause(0.5), SAID)
HANGS = (Pause(60),)
FAULTS = {"refuses": REFUSED, "garbage": GARBAGE, "cut": CUT, "slow": SLOW, "hangs": HANGS}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", ["chat", "stream", "responses"])
async def test_what_is_wrong_with_the_shadow_never_reaches_the_client(
    cloud: ScriptedCloud, tmp_path: Path, fault: str, form: str
):
    cloud.plays(*FAULTS[fault])
    local = Engine("local", [*text("fine"), finish()])

    async with serving_with(
        shadowed(tmp_path, "share: 1, deadline_s: 1"), local, cloud_backend(cloud)
    ) as url:
        said = await _said(url, form)
        told = await settled(url, 1)

    assert said == "fine"
    assert sum(told["outcomes"].values()) == 1
    assert set(told["outcomes"]) <= {"failed", "upstream_aborted", "completed"}
    assert ("completed" in told["outcomes"]) == (fault == "slow")


async def _said(url: str, form: str) -> str:
    if form == "chat":
        return (await ask(url, tools=None)).json["choices"][0]["message"]["content"]
    if form == "stream":
        events = [event async for event in events_of(url, tools=None)]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    asked = msgspec.json.encode({"model": "gpt-4o", "input": "Ping a."})
    response = (await send("POST", f"{url}/responses", asked)).json
    return response["output"][0]["content"][0]["text"]


async def test_full_queue_drops_and_counts(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(Pause(60))
    config = shadowed(tmp_path, "share: 1, max_in_flight: 1, max_waiting: 2")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        statuses = [(await ask(url)).status for _ in range(6)]
        told = await lane(url)

    assert statuses == [200] * 6
    assert (told["in_flight"], told["waiting"], told["dropped"]) == (1, 2, {"queue_full": 3})


async def test_shutdown_during_shadows_is_clean(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(Pause(60))
    sink = MemorySink()

    async with asyncio.timeout(5):
        async with serving_with(
            shadowed(tmp_path, "share: 1, max_in_flight: 1"),
            Engine("local", GOOD),
            cloud_backend(cloud),
            sink=sink,
        ) as url:
            await ask(url)
            await ask(url)
            await cloud.arrived.wait()
        await cloud.abandoned.wait()

    assert (len(sink.exchanges), sink.shadows) == (2, [])


async def test_error_that_nobody_foresaw_is_counted_and_the_lane_goes_on(tmp_path: Path):
    sink = MemorySink()
    broken = _Broken("cloud", GOOD)

    async with serving_with(shadowed(tmp_path), Engine("local", GOOD), broken, sink=sink) as url:
        await ask(url)
        await ask(url)
        told = await settled(url, 2)

    assert told["dropped"] == {"error": 1}
    assert told["outcomes"] == {"completed": 1}


class _Broken(Engine):
    """Breaks once, as nothing should."""

    @asynccontextmanager
    async def ask(self, ask: Any) -> AsyncIterator[Any]:
        self.asked.set()
        if not self.asks:
            self.asks.append(ask)
            raise RuntimeError("a fault of ours")
        async with super().ask(ask) as reply:
            yield reply


# ---------------------------------------------------------------- what is not shadowed


async def test_only_the_sampled_conversations_are_shadowed_and_those_whole(
    cloud: ScriptedCloud, tmp_path: Path
):
    cloud.plays(SAID)
    sink = MemorySink()

    async with serving_with(
        shadowed(tmp_path, "share: 0.5"), Engine("local", GOOD), cloud_backend(cloud), sink=sink
    ) as url:
        for number in range(40):
            await ask(url, headers={"x-headrace-conversation": f"c-{number % 20}"})
        told = await settled(url, 1)

    by_conversation = [shadow.conversation for shadow in sink.shadows]
    assert told["sampled"] == len(by_conversation)
    assert 4 <= len(set(by_conversation)) <= 16
    assert {by_conversation.count(one) for one in by_conversation} == {2}


@pytest.mark.parametrize(
    ("more", "headers", "fields"),
    [
        ({}, {"x-headrace-record": "off"}, {}),
        ({}, {"x-headrace-record": "metadata"}, {}),
        ({"obey_store": "true"}, {}, {"store": False}),
        ({"record": "tenants: {default: {level: metadata}}"}, {}, {}),
    ],
)
async def test_what_may_not_be_recorded_in_full_is_not_shadowed(
    cloud: ScriptedCloud, tmp_path: Path, more: Any, headers: Any, fields: Any
):
    cloud.plays(SAID)

    async with serving_with(
        shadowed(tmp_path, **more), Engine("local", GOOD), cloud_backend(cloud)
    ) as url:
        await ask(url, headers=headers, **fields)
        told = await settled(url, 1)

    assert (told["dropped"], cloud.requests) == ({"not_recorded": 1}, [])


async def test_backend_that_was_asked_anyway_is_not_asked_again(
    cloud: ScriptedCloud, tmp_path: Path
):
    cloud.plays(SAID)
    local = Engine("local", [BackendUnavailable("down")])

    async with serving_with(
        _rescued(tmp_path),
        local,
        cloud_backend(cloud),
    ) as url:
        await ask(url)
        told = await settled(url, 1)

    assert (told["dropped"], len(cloud.requests)) == ({"asked_already": 1}, 1)


def _rescued(directory: Path) -> Config:
    config = shadowed(directory)
    domain = msgspec.structs.replace(config.domains["all"], plan=["local", "cloud"])
    return msgspec.structs.replace(config, domains={"all": domain})


async def test_failed_request_has_no_shadow(cloud: ScriptedCloud, tmp_path: Path):
    local = Engine("local", [BackendUnavailable("down")])

    async with serving_with(shadowed(tmp_path), local, cloud_backend(cloud)) as url:
        response = await ask(url)
        told = await lane(url)

    assert (response.status, told["sampled"]) == (502, 0)


async def test_what_the_other_backend_cannot_do_is_not_asked(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(SAID)
    local = Engine("local", GOOD)

    async with serving_with(shadowed(tmp_path, to="local"), local, cloud_backend(cloud)) as url:
        await ask(url, logprobs=True)
        told = await settled(url, 1)

    assert (told["dropped"], local.asks) == ({"unsupported": 1}, [])


async def test_backend_that_limits_us_is_left_to_the_clients(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(scripted.error(429, "slow down", "rate_limit_exceeded"))
    config = shadowed(tmp_path)

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        await ask(url)
        await settled(url, 1)
        await ask(url)
        told = await settled(url, 2)

    assert (told["outcomes"], told["dropped"]) == ({"failed": 1}, {"limited": 1})
    assert len(cloud.requests) == 1


async def test_backend_that_fails_again_and_again_is_left_alone(
    cloud: ScriptedCloud, tmp_path: Path
):
    cloud.plays(*REFUSED)
    config = shadowed(tmp_path, "share: 1, max_in_flight: 1")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        for _ in range(7):
            await ask(url)
            told = await settled(url, 1)

    assert (told["outcomes"], told["dropped"]) == ({"failed": 5}, {"unavailable": 2})
    assert len(cloud.requests) == 5


# ---------------------------------------------------------------- local engines


@dataclass
class Spared(Engine):
    """An engine that has a place to spare when the test says so."""

    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def spare(self, adapter: Adapter | None) -> None:
        await self.free.wait()


async def test_engine_is_asked_when_it_has_a_place_to_spare(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(SAID)
    sink, local = MemorySink(), Spared("local", GOOD)

    async with serving_with(
        shadowed(tmp_path, to="local"), local, cloud_backend(cloud), sink=sink
    ) as url:
        await ask(url)
        before = await lane(url)
        local.free.set()
        told = await settled(url, 1)

    assert (before["in_flight"], before["outcomes"]) == (1, {})
    assert told["outcomes"] == {"completed": 1}


async def test_engine_without_a_place_to_spare_is_not_asked(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(SAID)
    local = Spared("local", GOOD)

    async with serving_with(
        shadowed(tmp_path, "share: 1, deadline_s: 0.05", to="local"), local, cloud_backend(cloud)
    ) as url:
        await ask(url)
        told = await settled(url, 1)

    assert (told["dropped"], local.asks) == ({"no_room": 1}, [])


# ---------------------------------------------------------------- budget


async def test_budget_that_is_spent_ends_the_day_s_shadows(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(SAID)
    # Three tokens in and two out are 0.0000275 dollars.
    config = shadowed(tmp_path, "share: 1, max_in_flight: 1, budget_usd_per_day: 0.00005")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        for _ in range(4):
            await ask(url)
        told = await settled(url, 4)

    assert (told["outcomes"], told["dropped"]) == ({"completed": 2}, {"over_budget": 2})
    assert Budget(tmp_path).spent("all") == pytest.approx(5.5e-5)


async def test_budget_of_a_model_without_a_price_is_not_left_open(
    cloud: ScriptedCloud, tmp_path: Path
):
    unknown = completion({"role": "assistant", "content": "hi"}) | {"model": "brand-new"}
    cloud.plays(scripted.answer(unknown))
    config = shadowed(tmp_path, "share: 1, max_in_flight: 1, budget_usd_per_day: 1")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        await ask(url)
        await settled(url, 1)
        await ask(url)
        told = await settled(url, 2)

    assert (told["outcomes"], told["dropped"]) == ({"completed": 1}, {"price_unknown": 1})


async def test_budget_that_cannot_be_read_is_not_spent(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(SAID)
    (tmp_path / "shadow-budget.json").write_text("torn")
    config = shadowed(tmp_path, "share: 1, budget_usd_per_day: 1")

    async with serving_with(config, Engine("local", GOOD), cloud_backend(cloud)) as url:
        response = await ask(url)
        told = await settled(url, 1)

    assert (response.status, told["dropped"]) == (200, {"budget_unknown": 1})
    assert cloud.requests == []


# ---------------------------------------------------------------- admins


async def test_request_that_an_admin_pinned_is_no_traffic(cloud: ScriptedCloud, tmp_path: Path):
    key = "0123456789abcdef"
    config = shadowed(tmp_path)
    auth = msgspec.convert({"keys": [{"key": key, "admin": True}]}, type(config.auth))
    headers = {"authorization": f"Bearer {key}", "x-headrace-backend": "local"}

    async with serving_with(
        msgspec.structs.replace(config, auth=auth), Engine("local", GOOD), cloud_backend(cloud)
    ) as url:
        response = await ask(url, headers=headers)
        told = await lane(url, headers=headers)

    assert (response.status, told["sampled"]) == (200, 0)


# ---------------------------------------------------------------- candidates


async def test_candidate_whose_stage_is_over_is_asked_no_more(tmp_path: Path):
    write_bundle(tmp_path / "api-v2")
    local = Spared("local", [*text("hi"), finish()])
    catalog = Catalog({"local": local}, {})
    shadows = Shadows({}, catalog, Recorder(MemorySink()), places={"api": "local"})
    route = Route("api", Domain(plan=["local"]), "unknown")
    offered = [answered(route) for _ in range(4)]

    before = shadows.want("api")
    catalog.admit_canary("api", Proven("local", read(tmp_path / "api-v2"), 0.0, 1.0))
    wanted = shadows.want("api")
    for one in offered:
        shadows.offer(one)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(shadows.run())
        await until(lambda: shadows.trials()["api"].in_flight == 2)
        catalog.withdraw_canary("api")
        local.free.set()
        await until(lambda: sum(shadows.trials()["api"].outcomes.values()) == 2)
        await until(lambda: shadows.trials()["api"].in_flight == 0)
        running.cancel()

    told = shadows.trials()["api"]
    assert (before, wanted, shadows.want("api")) == (False, True, False)
    assert (told.sampled, told.outcomes, told.dropped) == (4, {"completed": 2}, {"withdrawn": 2})
    assert {ask.adapter.id for ask in local.asks if ask.adapter} == {"api-v2"}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0)


def answered(route: Route) -> Answered:
    """A request whose client has its answer, by nobody who is asked again."""
    recording = new_recording()
    recording.close(200)
    recording.is_kept = True
    return Answered(request=parse_request(BODY), body=BODY, route=route, recording=recording)
