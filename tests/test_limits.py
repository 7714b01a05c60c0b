from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from proxy.backends.base import Finish, Text
from proxy.errors import BudgetSpent, TooManyRequests
from proxy.limits import Limits, headers, spent
from proxy.logs import Facts
from proxy.protocol.exchange import Exchange
from proxy.protocol.openai import Usage, parse_request
from proxy.protocol.prices import Price
from proxy.quotas.base import Claim, Standing, Who
from proxy.quotas.memory import MemoryLedger
from proxy.quotas.settings import Quota
from proxy.recording import Recording
from tests import scripted
from tests.scripted import Pause, ScriptedCloud, chunk, completion, usage_chunk
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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0204, "20ms"), (0.999, "999ms"), (1, "1s"), (59.94, "59.9s"), (59.96, "1m0s"),
     (61.26, "1m1.3s"), (3661, "61m1s"), (-1, "0ms")],
)  # fmt: skip
def test_resets_are_rounded_before_they_are_parted(seconds, said):
    told = headers([Standing(Claim("k", "caller", "tokens", 10, 1), 1, seconds)])

    assert told["x-ratelimit-reset-tokens"] == said


def test_both_units_are_told_and_less_than_nothing_is_nothing():
    requests = Standing(Claim("a", "tenant", "requests", 2, 1), -3, 1)
    tokens = Standing(Claim("b", "caller", "tokens", 50.9, 1), 7.9, 1)
    budget = Standing(Claim("c", "caller", "usd", 1, 1), 1, 1)

    assert headers([requests, tokens, budget]) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": "1s",
    }


# ---------------------------------------------------------------- what is counted

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
PRICES = {"dear": [Price(since=date(2026, 1, 1), input=1e6, output=2e6)]}
"""A dollar for each token of a prompt, two for each of an answer."""


def at(now: float = NOON, **quota: object) -> Limits:
    """Limits of one quota, at a time that stands still."""
    return Limits(9, [Quota(**quota)], MemoryLedger(lambda: now), PRICES, lambda: now)


class OfACloud(Recording):
    """A recording of a cloud that says that it is the model `dear`."""

    def exchange(self) -> Exchange:
        made = super().exchange()
        return replace(made, attempts=[replace(one, model="dear") for one in made.attempts])


class PassedOn(Recording):
    """A recording of a request for embeddings."""

    def exchange(self) -> Exchange:
        return replace(super().exchange(), endpoint="/embeddings")


class Unreadable(Recording):
    def exchange(self) -> Exchange:
        raise ValueError("not to be read")


def used(*answers: Usage, kind: type[Recording] = Recording) -> Recording:
    """A request of so many attempts."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    made = kind(
        id="a", request_id="r", tenant="acme", caller="shop", domain="all", route="r",
        request=parse_request(body), body=body,
    )  # fmt: skip
    for usage in answers:
        with made.attempt("primary", "local") as tape:
            tape.hear(Text("hello"))
            tape.hear(Finish(reason="stop", usage=usage))
    made.close(200)
    return made


async def refusal(limits: Limits, body: bytes = b"") -> TooManyRequests | None:
    """Why one more request is refused; None where it is not."""
    try:
        async with limits.admit(WHO, body, facts()):
            return None
    except TooManyRequests as error:
        return error


async def count(limits: Limits) -> None:
    """Count all that is over."""
    counting = asyncio.create_task(limits.run())
    await asyncio.sleep(0)
    counting.cancel()
    await asyncio.wait([counting])


async def served(limits: Limits, recording: Recording | None, body: bytes = b"") -> Facts:
    """A request that is over and counted."""
    seen = facts()
    async with limits.admit(WHO, body, seen) as slot:
        slot.recording = recording
    await count(limits)
    return seen


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        ({"requests_per_minute": 1}, "the limit of 1 requests a minute of this caller is reached"),
        ({"per": "tenant", "requests_per_minute": 1}, "a minute of this tenant is reached"),
        ({"concurrent": 1}, "1 requests of this caller are in flight already; try again in 1.0 s"),
    ],
)
async def test_who_is_refused_is_told_which_limit_it_was(quota, said):
    limits = at(**quota)

    async with limits.admit(WHO, b"", facts()):
        refused = await refusal(limits)

    assert said in str(refused)
    assert type(refused) is TooManyRequests
    assert limits.in_flight == 0


async def test_wait_that_is_told_is_the_wait_that_is_meant():
    limits = at(requests_per_minute=1)
    await served(limits, None)

    refused = await refusal(limits)

    assert str(refused).endswith(f"try again in {refused.retry_after:.1f} s")
    assert 60 <= refused.retry_after <= 120


async def test_requests_in_flight_are_told_where_there_are_too_many():
    limits = Limits(2)

    async with limits.admit(WHO, b"", facts()), limits.admit(WHO, b"", facts()):
        refused = await refusal(limits)
        in_flight = limits.in_flight

    assert str(refused) == "2 requests are in flight already; try again soon"
    assert (in_flight, limits.in_flight) == (2, 0)


@pytest.mark.parametrize("claimed", [0, 40])
async def test_tokens_of_all_attempts_count_in_the_place_of_what_was_claimed(claimed: int):
    limits = at(tokens_per_minute=100)

    await served(limits, used(Usage.of(3, 4), Usage.of(5, 6)), b"x" * 4 * claimed)
    after = await served(limits, None)

    assert after.limits["x-ratelimit-remaining-tokens"] == str(100 - 18)


async def test_dollars_of_all_attempts_count_until_they_are_spent():
    limits = at(usd_per_day=20)

    await served(limits, used(Usage.of(3, 4), kind=OfACloud))
    between = await refusal(limits)
    await served(limits, used(Usage.of(1, 4), kind=OfACloud))
    refused = await refusal(limits)

    assert between is None
    assert isinstance(refused, BudgetSpent)
    assert str(refused) == "the budget of 20 USD of this caller is spent"
    assert refused.retry_after == 12 * 3600


def test_what_was_spent_is_the_sum_of_the_attempts():
    assert spent(used(Usage.of(3, 4), Usage.of(1, 0), kind=OfACloud), PRICES) == (8, 12.0)
    assert spent(used(Usage.of(3, 4)), PRICES) == (7, 0.0)
    assert spent(used(), PRICES) == (0, 0.0)


async def test_what_is_passed_on_unread_uses_what_it_claimed():
    limits = at(tokens_per_minute=100)

    with capture_logs() as logs:
        await served(limits, None, b"x" * 40)
        after = await served(limits, None)

    assert logs == []
    assert after.limits["x-ratelimit-remaining-tokens"] == "90"


@pytest.mark.parametrize(
    ("recording", "left"),
    [
        (used(kind=PassedOn), "90"),
        (used(Usage.of(3, 4), kind=PassedOn), "93"),
        (used(), "100"),
    ],
)
async def test_what_tells_nothing_of_its_use_keeps_what_it_claimed_unless_it_is_a_chat(
    recording: Recording, left: str
):
    limits = at(tokens_per_minute=100)

    await served(limits, recording, b"x" * 40)
    after = await served(limits, None)

    assert after.limits["x-ratelimit-remaining-tokens"] == left


async def test_answer_that_cannot_be_read_ends_the_counting_of_no_other():
    limits = at(tokens_per_minute=100)
    broken = used(Usage.of(9, 9), kind=Unreadable)

    with capture_logs() as logs:
        for recording in (broken, used(Usage.of(3, 4))):
            async with limits.admit(WHO, b"", facts()) as slot:
                slot.recording = recording
        await count(limits)
    after = await served(limits, None)

    assert [line["event"] for line in logs] == ["use_not_counted"]
    assert after.limits["x-ratelimit-remaining-tokens"] == "93"


class Heard(MemoryLedger):
    """Hears which slots are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed: asyncio.Queue[Sequence[tuple[str, str]]] = asyncio.Queue()

    async def renew(self, leases: Sequence[tuple[str, str]]) -> None:
        self.renewed.put_nowait(leases)


async def test_slots_are_renewed_again_and_again_for_as_long_as_they_are_held(monkeypatch):
    monkeypatch.setattr("proxy.limits.LEASE_S", 0.03)
    ledger = Heard()
    limits = Limits(9, [Quota(concurrent=5, requests_per_minute=9)], ledger)
    counting = asyncio.create_task(limits.run())

    async with limits.admit(WHO, b"", facts()), asyncio.timeout(10):
        held = [await ledger.renewed.get() for _ in range(3)]
    async with asyncio.timeout(10):
        while await ledger.renewed.get():
            pass
    counting.cancel()
    await asyncio.wait([counting])

    assert [len(one) for one in held[1:]] == [1, 1]
    assert held[2][0][0] == "caller:acme/shop:slots"


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


RESPONSE = {"model": "gpt-4o", "usage": {"input_tokens": 3, "output_tokens": 2}}
COMPLETED = {"model": "gpt-4o", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
CHAT = msgspec.json.encode({
    "model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "stream": True,
})  # fmt: skip


@pytest.mark.parametrize(
    ("path", "more", "answers"),
    [
        ("responses", {}, [scripted.answer(RESPONSE)]),
        ("responses", {"stream": True}, scripted.stream({"response": RESPONSE})),
        ("embeddings", {}, [scripted.answer(COMPLETED)]),
    ],
)
async def test_money_is_spent_on_what_is_passed_on(
    cloud: ScriptedCloud, path: str, more: dict[str, object], answers: list[object]
):
    body = msgspec.json.encode({"model": "gpt-4o", "input": "x"} | more)

    async with limited(cloud, "{quotas: [{usd_per_day: 0.00002}]}", answers=answers) as url:
        first = await send("POST", f"{url}/{path}", body, ACME)
        async with asyncio.timeout(10):
            while (await send("POST", f"{url}/{path}", body, ACME)).status == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert first.status == 200


@pytest.mark.parametrize(
    ("quota", "asked"), [("usd_per_day", True), ("tokens_per_minute", True), ("concurrent", False)]
)
async def test_stream_s_usage_is_asked_for_where_somebody_pays_by_it(
    cloud: ScriptedCloud, quota: str, asked: bool
):
    """What a model thinks in silence is in no text."""
    answers = scripted.stream(chunk({"content": "x"}, "stop"), usage_chunk(3, 2))

    async with limited(cloud, f"{{quotas: [{{{quota}: 1000}}]}}", answers=answers) as url:
        answer = await send("POST", f"{url}/chat/completions", CHAT, ACME)

    assert ("stream_options" in cloud.requests[0].json) == asked
    assert (b'"usage"' not in answer.content) == asked


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
