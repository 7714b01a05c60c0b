"""Each ledger by the same tests; Redis's script on a real Valkey server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from proxy.quotas.base import Charge, Claim, Ledger, LedgerUnavailable
from proxy.quotas.memory import MemoryLedger
from proxy.quotas.redis import RedisLedger
from proxy.quotas.settings import SharedSettings
from tests.valkey import valkey


def requests(limit: float, key: str = "rpm", amount: float = 1) -> Claim:
    return Claim(key, "caller", "requests", limit, amount)


def slots(limit: float, key: str = "slots") -> Claim:
    return Claim(key, "caller", "concurrent", limit, 1)


def usd(limit: float, key: str = "day") -> Claim:
    return Claim(key, "caller", "usd", limit, 0, time.time() + 1000)


@pytest.fixture(params=["memory", "redis"])
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    async with valkey() as server:
        ledger = RedisLedger(SharedSettings(url=server.url, timeout_s=5))
        yield ledger
        await ledger.aclose()


async def test_rate_is_had_and_not_more(ledger: Ledger):
    verdicts = [await ledger.take([requests(3)], "x") for _ in range(4)]

    assert [verdict.refused is None for verdict in verdicts] == [True, True, True, False]
    remaining = [v.standings[0].remaining for v in verdicts]
    assert remaining == pytest.approx([2, 1, 0, 0], abs=1e-3)
    # The first request leaves the window a minute after it fell out of the current one.
    assert verdicts[3].wait_s == pytest.approx(60 + 20, abs=2)
    assert verdicts[2].standings[0].reset_s == pytest.approx(120, abs=2)


async def test_what_is_refused_takes_nothing_of_the_others(ledger: Ledger):
    await ledger.take([requests(1, "a")], "x")

    refused = await ledger.take([requests(5, "b"), slots(5), requests(1, "a")], "y")
    allowed = await ledger.take([requests(5, "b"), slots(1)], "z")

    assert refused.refused == requests(1, "a")
    assert [s.remaining for s in allowed.standings] == pytest.approx([4, 0], abs=1e-3)


async def test_what_was_claimed_too_much_comes_back(ledger: Ledger):
    claim = requests(100, amount=90)
    await ledger.take([claim], "x")
    assert (await ledger.take([claim], "y")).refused

    await ledger.settle([Charge(claim, -80)], [], "x")

    assert (await ledger.take([claim], "y")).refused is None


async def test_use_is_never_less_than_none(ledger: Ledger):
    claim = requests(10, amount=1)

    await ledger.settle([Charge(claim, -500)], [], "x")

    verdict = await ledger.take([claim], "x")
    assert verdict.standings[0].remaining == pytest.approx(9, abs=1e-3)


async def test_slots_are_given_back(ledger: Ledger):
    claim = slots(2)
    assert not (await ledger.take([claim], "a")).refused
    assert not (await ledger.take([claim], "b")).refused
    assert (await ledger.take([claim], "c")).refused == claim

    await ledger.settle([], [claim], "a")
    await ledger.settle([], [claim], "nobody")

    assert not (await ledger.take([claim], "c")).refused
    assert (await ledger.take([claim], "d")).refused == claim


async def test_budget_is_refused_once_it_is_spent_until_it_begins_anew(ledger: Ledger):
    claim = usd(1.0)
    await ledger.settle([Charge(claim, 0.00001)], [], "x")
    assert (await ledger.take([claim], "x")).refused is None

    await ledger.settle([Charge(claim, 1.5)], [], "x")

    verdict = await ledger.take([claim], "x")
    assert verdict.refused == claim
    assert verdict.wait_s == pytest.approx(1000, abs=5)


async def test_many_at_once_have_no_more_than_there_is(ledger: Ledger):
    taken = await asyncio.gather(*(ledger.take([requests(50)], str(n)) for n in range(200)))

    assert sum(verdict.refused is None for verdict in taken) == 50


# ---------------------------------------------------------------- Redis alone


async def test_slot_of_a_proxy_that_died_is_free_in_time_and_one_that_is_renewed_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("proxy.quotas.redis.LEASE_S", 0.3)
    async with valkey() as server:
        ledger = RedisLedger(SharedSettings(url=server.url, timeout_s=5))
        await ledger.take([slots(1, "dead")], "a")
        await ledger.take([slots(1, "live")], "a")
        for _ in range(5):
            await asyncio.sleep(0.1)
            await ledger.renew([("live", "a"), ("unheard-of", "a")])

        assert not (await ledger.take([slots(1, "dead")], "b")).refused
        assert (await ledger.take([slots(1, "live")], "b")).refused
        assert not (await ledger.take([slots(1, "unheard-of")], "b")).refused
        await ledger.aclose()


async def test_window_slides_on_the_server(monkeypatch: pytest.MonkeyPatch):
    async with valkey() as server:
        ledger = RedisLedger(SharedSettings(url=server.url, timeout_s=5), window_s=0.2)
        first = [await ledger.take([requests(10)], "x") for _ in range(11)]
        await asyncio.sleep(first[10].wait_s + 0.01)
        assert (await ledger.take([requests(10)], "x")).refused is None
        await asyncio.sleep(0.5)
        assert (await ledger.take([requests(10)], "x")).standings[0].remaining == pytest.approx(9)
        await ledger.aclose()


async def test_server_that_is_away_is_told_without_its_password():
    ledger = RedisLedger(SharedSettings(url="redis://:secret-word@127.0.0.1:1/0"))

    with pytest.raises(LedgerUnavailable) as caught:
        await ledger.take([requests(1)], "x")

    assert "secret-word" not in str(caught.value)
