"""Who can wait gets a place only when nobody else would miss it."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.backends.places import Places
from proxy.balance import Balancer, BalanceSettings

ABLE = {"a": "server"}
PREFIX = ("api-v1", "p")


@pytest.fixture
def balancer() -> Balancer:
    balancer = Balancer(BalanceSettings(), 2, time.monotonic)
    balancer.keep(["a"])
    return balancer


@pytest.fixture
def places(balancer: Balancer) -> Places[str]:
    return Places("engine", balancer, 5)


async def test_place_is_spared_at_once_where_enough_are_free(places: Places[str]):
    async with asyncio.timeout(1):
        await places.spare(lambda: ABLE)


async def test_place_is_spared_once_one_is_given_back(places: Places[str]):
    taken = await places.take(lambda: ABLE, 10, PREFIX)
    sparing = asyncio.create_task(places.spare(lambda: ABLE))
    await asyncio.sleep(0)
    before = sparing.done()

    places.give_back(taken, "served")
    async with asyncio.timeout(1):
        await sparing

    assert not before


async def test_place_is_spared_once_a_server_is_able(places: Places[str]):
    able: dict[str, str] = {}
    sparing = asyncio.create_task(places.spare(lambda: able))
    await asyncio.sleep(0)
    before = sparing.done()

    able.update(ABLE)
    places.serve()
    async with asyncio.timeout(1):
        await sparing

    assert not before


async def test_nothing_is_spared_while_somebody_waits(places: Places[str], balancer: Balancer):
    balancer.keep(["a", "b"])
    full = [await places.take(lambda: {"b": "other"}, 10, PREFIX) for _ in range(2)]
    waiting = asyncio.create_task(places.take(lambda: {"b": "other"}, 10, PREFIX))
    await asyncio.sleep(0)
    sparing = asyncio.create_task(places.spare(lambda: ABLE))
    await asyncio.sleep(0)
    before = sparing.done()

    places.give_back(full[0], "served")
    await waiting
    async with asyncio.timeout(1):
        await sparing

    assert not before
