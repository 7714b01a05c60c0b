from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.errors import BudgetSpent, TooManyRequests
from proxy.limits import Limits, headers
from proxy.logs import Facts
from proxy.quotas.base import Claim, Standing, Who
from proxy.quotas.settings import Quota
from tests import scripted
from tests.scripted import Pause, ScriptedCloud, completion
from tests.serving import serving, settings
from tests.valkey import Valkey, valkey
from tests.wire import ask, send

WHO = Who("acme", "shop", "all")
KEYS = """
auth:
  keys:
    - {key: key-of-tenant-acme-1234, tenant: acme, name: shop}
    - {key: key-of-tenant-other-123, tenant: other, name: shop}
"""
ACME = {"authorization": "Bearer key-of-tenant-acme-1234"}
OTHER = {"authorization": "Bearer key-of-tenant-other-123"}


def facts() -> Facts:
    return Facts(request_id="x")


async def test_one_more_than_the_limit_is_told_when_to_return():
    limits = Limits(1)

    async with limits.admit(WHO, b"", facts()):
        with pytest.raises(TooManyRequests) as caught:
            async with limits.admit(WHO, b"", facts()):
                pass

    assert caught.value.headers == {"retry-after": "1", "retry-after-ms": "1000"}


async def test_slot_is_free_again_after_an_error():
    limits = Limits(1, [Quota(concurrent=1)])

    with pytest.raises(ZeroDivisionError):
        async with limits.admit(WHO, b"", facts()):
            raise ZeroDivisionError

    async with limits.admit(WHO, b"", facts()):
        assert limits.in_flight == 1


def test_budget_says_that_a_retry_is_of_no_use():
    error = BudgetSpent("spent", 3600)

    assert error.headers["x-should-retry"] == "false"
    assert error.headers["retry-after"] == "3600"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0ms"), (0.0204, "20ms"), (1.5, "1.5s"), (90, "1m30s"), (360, "6m0s")]
)
def test_resets_are_written_as_openai_does(seconds, said):
    claim = Claim("k", "tenant", "requests", 10, 1)

    told = headers([Standing(claim, 3.7, seconds)])

    assert told["x-ratelimit-reset-requests"] == said
    assert told["x-ratelimit-remaining-requests"] == "3"


def test_nearest_limit_is_told_and_what_others_use_is_not():
    near = Standing(Claim("a", "tenant", "tokens", 50, 1), 2, 1)
    far = Standing(Claim("b", "caller", "tokens", 10, 1), 9, 1)
    others = Standing(Claim("c", "domain", "requests", 10, 1), 0, 1)

    assert headers([near, far, others]) == {
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "2",
        "x-ratelimit-reset-tokens": "1s",
    }


# ---------------------------------------------------------------- through the proxy


@asynccontextmanager
async def limited(
    cloud: ScriptedCloud, limits: str, *, answers: object = None
) -> AsyncIterator[str]:
    answer = scripted.answer(completion({"role": "assistant", "content": "x"}))
    cloud.plays(*(answers or [answer]))
    config = settings(f"cloud={cloud.base_url}", extra=f"{KEYS}limits: {limits}\n")
    async with serving(config) as url:
        yield url


async def test_rate_is_each_tenant_s_own_and_refused_with_all_headers(cloud: ScriptedCloud):
    async with limited(cloud, "{quotas: [{per: tenant, requests_per_minute: 2}]}") as url:
        answers = [await ask(url, ACME) for _ in range(3)]
        other = await ask(url, OTHER)

    assert [answer.status for answer in (*answers, other)] == [200, 200, 429, 200]
    refused = answers[2]
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after-ms"]) > 1000
    assert int(refused.headers["retry-after"]) >= 1
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["1", "0", "0"]
    assert {a.headers["x-ratelimit-limit-requests"] for a in answers} == {"2"}


async def test_cloud_s_own_limits_are_not_told_beside_ours(cloud: ScriptedCloud):
    theirs = scripted.answer(
        completion({"content": "x"}),
        "x-ratelimit-remaining-requests: 999",
        "x-ratelimit-remaining-tokens: 888",
    )
    quota = "{quotas: [{requests_per_minute: 2}]}"
    async with limited(cloud, quota, answers=[theirs]) as url:
        answer = await ask(url, ACME)

    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "888"


async def test_tokens_count_as_the_backend_counted_them(cloud: ScriptedCloud):
    """A prompt of some 70 tokens is claimed; 5 are what the cloud counted."""
    async with limited(cloud, "{quotas: [{tokens_per_minute: 100}]}") as url:
        async with asyncio.timeout(10):
            for _ in range(5):
                while (await ask(url, ACME)).status == 429:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        answer = await ask(url, ACME)

    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 100 - 5 * 5


async def test_day_s_money_is_refused_once_it_is_spent(cloud: ScriptedCloud):
    # 3 and 2 tokens of gpt-4o: 27.5 millionths of a dollar.
    async with limited(cloud, "{quotas: [{usd_per_day: 0.00005}]}") as url:
        async with asyncio.timeout(10):
            statuses = [(await ask(url, ACME)).status]
            while statuses[-1] == 200:
                statuses.append((await ask(url, ACME)).status)
                await asyncio.sleep(0.01)
        refused = await ask(url, ACME)
        other = await ask(url, OTHER)

    assert statuses[:2] == [200, 200]
    assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert other.status == 200


async def test_slots_are_held_for_as_long_as_the_answer_lasts(cloud: ScriptedCloud):
    slow = [Pause(0.3), scripted.answer(completion({"content": "x"}))]
    async with limited(cloud, "{quotas: [{per: tenant, concurrent: 1}]}", answers=slow) as url:
        first = asyncio.create_task(ask(url, ACME))
        await cloud.arrived.wait()
        refused, other = await asyncio.gather(ask(url, ACME), ask(url, OTHER))
        answered = await first
        again = await ask(url, ACME)

    statuses = [refused.status, other.status, answered.status, again.status]
    assert statuses == [429, 200, 200, 200]


async def test_what_is_passed_on_counts_too(cloud: ScriptedCloud):
    async with limited(cloud, "{quotas: [{requests_per_minute: 1}]}") as url:
        body = b'{"model": "gpt-4o", "input": "x"}'
        answers = [await send("POST", f"{url}/embeddings", body, ACME) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 429]


# ---------------------------------------------------------------- several proxies


@asynccontextmanager
async def two_proxies(
    cloud: ScriptedCloud, server: Valkey, quotas: str, how: str = "open"
) -> AsyncIterator[list[str]]:
    shared = f"{{url: '{server.url}', when_unreachable: {how}, timeout_s: 2}}"
    limits = f"{{quotas: [{quotas}], shared: {shared}}}"
    async with limited(cloud, limits) as one, limited(cloud, limits) as other:
        yield [one, other]


async def asked(urls: list[str], count: int, at_once: int = 8) -> list[int]:
    """Statuses of so many requests, spread over the proxies."""
    turns = asyncio.Semaphore(at_once)

    async def one(number: int) -> int:
        async with turns:
            return (await ask(urls[number % len(urls)], ACME)).status

    return await asyncio.gather(*(one(number) for number in range(count)))


async def test_limits_of_two_proxies_add_up(cloud: ScriptedCloud):
    async with valkey() as server:
        quota = "{per: tenant, requests_per_minute: 150}"
        async with two_proxies(cloud, server, quota) as urls:
            statuses = await asked(urls, 300)

    assert set(statuses) == {200, 429}
    assert statuses.count(200) == pytest.approx(150, rel=0.02)


async def test_server_killed_under_load_leaves_each_proxy_its_own_count(cloud: ScriptedCloud):
    async with valkey() as server:
        quota = "{per: tenant, requests_per_minute: 40}"
        async with two_proxies(cloud, server, quota) as urls:
            before = await asked(urls, 20)
            load = asyncio.create_task(asked(urls, 200))
            await server.kill()
            during = await load
            await server.start()
            # What failed is left alone for a second.
            await asyncio.sleep(1.1)
            after = await asked(urls, 100)

    assert set(before) == {200}
    assert set(during) == {200, 429}
    assert 40 <= during.count(200) <= 3 * 40
    # The server has lost its counts, and holds the limit again for both together.
    assert after.count(200) == 40


async def test_server_killed_under_load_refuses_where_that_is_how_it_is_set(cloud: ScriptedCloud):
    async with valkey() as server:
        quota = "{per: tenant, requests_per_minute: 1000}"
        async with two_proxies(cloud, server, quota, "closed") as urls:
            load = asyncio.create_task(asked(urls, 150))
            await server.kill()
            during = await load
            refused = await ask(urls[0], ACME)
            await server.start()
            await asyncio.sleep(1.1)
            after = await asked(urls, 20)

    assert set(during) <= {200, 503}
    assert (refused.status, refused.json["error"]["code"]) == (503, "limits_unavailable")
    assert refused.headers["retry-after-ms"] == "1000"
    assert set(after) == {200}


async def test_slots_are_counted_over_both(cloud: ScriptedCloud):
    async with valkey() as server:
        slow = [Pause(0.5), scripted.answer(completion({"content": "x"}))]
        shared = f"{{quotas: [{{concurrent: 1}}], shared: {{url: '{server.url}', timeout_s: 2}}}}"
        async with limited(cloud, shared, answers=slow) as one, limited(cloud, shared) as other:
            first = asyncio.create_task(ask(one, ACME))
            await cloud.arrived.wait()
            refused = await ask(other, ACME)
            answered = await first

    assert (refused.status, answered.status) == (429, 200)
