"""What /metrics says of requests: over real sockets, read with Prometheus' own parser."""

from __future__ import annotations

import asyncio

import pytest

from proxy.backends.openai import OpenAIBackend
from proxy.errors import BackendUnavailable
from proxy.logs import Facts
from proxy.metrics import MAX_WAITING, Metrics
from proxy.sinks.memory import MemorySink
from tests.scraping import scraped, total
from tests.scripted import (
    Pause,
    ScriptedCloud,
    answer,
    chunk,
    completion,
    error,
    stream,
    usage_chunk,
)
from tests.serving import Engine, call, finish, serving_with, settings
from tests.wire import ask

HI = completion({"role": "assistant", "content": "hi"})
PING = [call("ping", '{"host":"a"}'), finish()]


async def test_answer_is_counted_by_domain_and_backend():
    async with serving_with(settings("local"), Engine("local", PING)) as url:
        await ask(url)
        samples = await scraped(url, requests=1)

    who = {"domain": "all", "backend": "local", "adapter": ""}
    assert total(samples, "headrace_requests_total", domain="all", status="200", error="") == 1
    assert total(samples, "headrace_matches_total", domain="all", match="unknown") == 1
    completed = {"kind": "primary", "outcome": "completed", "reason": ""}
    assert total(samples, "headrace_attempts_total", **who, **completed) == 1
    assert total(samples, "headrace_own_seconds_count", domain="all") == 1
    for name in (
        "gen_ai_client_operation_duration_seconds_count",
        "gen_ai_server_request_duration_seconds_count",
        "gen_ai_server_time_to_first_token_seconds_count",
    ):
        assert total(samples, name, **who, gen_ai_operation_name="chat") == 1
    usage = "gen_ai_client_token_usage_sum"
    assert total(samples, usage, **who, gen_ai_token_type="input") == 3
    assert total(samples, usage, **who, gen_ai_token_type="output") == 2


async def test_tokens_of_a_cloud_are_read_from_its_bytes(cloud: ScriptedCloud):
    said = chunk({"role": "assistant", "content": "hi"}, "stop")
    cloud.plays(*stream(said, usage_chunk(7, 5)))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url)

    async with serving_with(settings("cloud"), backend) as url:
        await ask(url, stream=True, stream_options={"include_usage": True})
        samples = await scraped(url, requests=1)

    openai = {"backend": "cloud", "gen_ai_provider_name": "openai"}
    usage = "gen_ai_client_token_usage_sum"
    assert total(samples, usage, **openai, gen_ai_token_type="input") == 7
    assert total(samples, usage, **openai, gen_ai_token_type="output") == 5


async def test_what_is_not_recorded_is_counted_all_the_same():
    sink = MemorySink()
    engine = Engine("local", PING)

    async with serving_with(settings("local"), engine, sink=sink) as url:
        await ask(url, {"x-headrace-record": "off"})
        samples = await scraped(url, requests=1)

    assert sink.exchanges == []
    assert total(samples, "headrace_attempts_total", backend="local", outcome="completed") == 1


async def test_wrong_calls_are_counted_by_reason_and_so_are_those_put_right():
    wrong = [call("pong", "{}"), finish()]
    mended = [call("ping", "{'host':'a'}"), finish()]
    engine = Engine("local", wrong, [mended])

    async with serving_with(settings("local"), engine) as url:
        await ask(url)
        samples = await scraped(url, requests=1)

    failures = "headrace_validation_failures_total"
    assert total(samples, failures, backend="local", reason="unknown_tool") == 1
    assert total(samples, failures) == 1
    assert total(samples, "headrace_repairs_total", code="json_syntax") == 1
    assert total(samples, "headrace_attempts_total", kind="repair", outcome="completed") == 1


async def test_fallback_is_counted_with_its_reason_and_who_answered():
    first = Engine("first", [BackendUnavailable("down")])

    async with serving_with(settings("first", "second"), first, Engine("second", PING)) as url:
        await ask(url)
        samples = await scraped(url, requests=1)

    fallbacks = {"domain": "all", "backend": "second", "reason": "backend_unavailable"}
    assert total(samples, "headrace_fallbacks_total", **fallbacks) == 1
    assert total(samples, "headrace_fallbacks_total") == 1


async def test_field_that_a_client_made_up_is_no_label(cloud: ScriptedCloud):
    cloud.plays(answer(HI))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url)

    async with serving_with(settings("local", "cloud"), Engine("local", PING), backend) as url:
        response = await ask(url, made_up=1)
        samples = await scraped(url, requests=1)

    assert response.headers["x-headrace-fallback-reason"] == "unsupported_made_up"
    assert total(samples, "headrace_fallbacks_total", reason="unsupported") == 1
    assert "made_up" not in str(samples)


async def test_code_that_a_cloud_made_up_is_no_label(cloud: ScriptedCloud):
    cloud.plays(error(422, "no", "made_up"))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url)

    async with serving_with(settings("cloud"), backend) as url:
        await ask(url)
        await ask(url, model="made-up")
        samples = await scraped(url, requests=2)

    assert total(samples, "headrace_requests_total", status="422", error="other") == 1
    assert total(samples, "headrace_requests_total", status="404", error="model_not_found") == 1
    assert "made" not in str(samples)


@pytest.mark.parametrize(("pause", "result"), [(0.0, None), (5.0, "won")])
async def test_hedges_are_counted(pause: float, result: str | None):
    first = Engine("first", [Pause(pause), *PING])
    config = settings("first", "second", policy="hedge: {after_s: 0.05, share: 1}")

    async with serving_with(config, first, Engine("second", PING)) as url:
        await ask(url)
        samples = await scraped(url, requests=1)

    assert total(samples, "headrace_hedges_total") == (0 if result is None else 1)
    assert total(samples, "headrace_hedges_total", result="won") == (result == "won")


async def test_lookups_in_the_cache_are_counted():
    config = settings("local", policy="cache: {}")

    async with serving_with(config, Engine("local", PING)) as url:
        await ask(url, temperature=0)
        await ask(url, temperature=0)
        samples = await scraped(url, requests=2)

    lookups = "headrace_cache_lookups_total"
    assert total(samples, lookups, domain="all", result="miss") == 1
    assert total(samples, lookups, domain="all", result="hit") == 1
    assert total(samples, "headrace_attempts_total", backend="cache") == 1


async def test_requests_that_drift_are_counted():
    metrics = Metrics({})

    metrics.put(Facts("r1", domain="api", drifted=["find", "book"]))
    metrics.put(Facts("r2", domain="api"))
    metrics.drain()

    assert (
        metrics.registry.get_sample_value("headrace_drifted_requests_total", {"domain": "api"}) == 1
    )


async def test_requests_are_counted_beside_the_loop_without_anybody_reading():
    metrics = Metrics({})
    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(metrics.run())
        for number in range(3):
            metrics.put(Facts(str(number), domain="api", status=200))
            await _counted(metrics, number + 1)
        counting.cancel()


async def _counted(metrics: Metrics, requests: int) -> None:
    labels = {"domain": "api", "status": "200", "error": ""}
    for _ in range(500):
        if metrics.registry.get_sample_value("headrace_requests_total", labels) == requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not counted in 5 s")


async def test_requests_that_nobody_counts_do_not_pile_up():
    metrics = Metrics({})

    for number in range(MAX_WAITING + 1):
        metrics.put(Facts(str(number), domain="api", status=200))

    labels = {"domain": "api", "status": "200", "error": ""}
    counted = metrics.registry.get_sample_value("headrace_requests_total", labels)
    assert counted == MAX_WAITING + 1
