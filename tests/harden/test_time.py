"""Clocks that jump, days of 23 and 25 hours, a second that comes twice: what counts stays right."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth import Authenticator
from proxy.budget import Budget
from proxy.errors import Unauthenticated
from proxy.keys.base import Key
from proxy.protocol import parquet
from proxy.protocol.prices import PRICES, price_at
from proxy.quotas.base import Claim, Who, claims
from proxy.quotas.memory import WINDOW_S, MemoryLedger, Window
from proxy.quotas.settings import Quota
from tests.record.examples import exchange

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The machine's time zone, with hours that come twice or never."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- limits


def rate(limit: float) -> Claim:
    return Claim("rpm", "caller", "requests", limit, 1)


async def taken(ledger: MemoryLedger, times: int, limit: float = 5) -> int:
    """How many of so many requests are let in."""
    return sum([(await ledger.take([rate(limit)], "l")).refused is None for _ in range(times)])


@pytest.mark.parametrize("back_s", [1, 61, 3600, 86_400 * 365])
async def test_clock_that_goes_back_locks_nobody_out_for_long(back_s: float):
    clock = Clock()
    ledger = MemoryLedger(clock)
    await taken(ledger, 5)
    clock.now += WINDOW_S
    await taken(ledger, 5)

    clock.now -= back_s
    refused = await ledger.take([rate(5)], "l")
    clock.now += 2 * WINDOW_S

    assert refused.wait_s <= 2 * WINDOW_S
    assert 4 <= await taken(ledger, 9) <= 5


@pytest.mark.parametrize("on_s", [61, 3600, 86_400 * 365])
async def test_clock_that_leaps_ahead_gives_one_minute_s_worth(on_s: float):
    clock = Clock()
    ledger = MemoryLedger(clock)
    await taken(ledger, 5)

    clock.now += on_s

    assert await taken(ledger, 50) <= 5


@given(steps=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([-1.0, 0.0, 1.0, 30.0]), max_size=30))
def test_whatever_the_clock_does_no_reading_holds_more_than_twice_the_limit(steps: list[float]):
    clock, window = NOON, Window(NOON)
    for step in steps:
        clock += step
        window.advance(clock)
        if window.wait(clock, 1, 5) <= 0:
            window.current += 1

        assert window.previous <= 5 and window.current <= 5
        assert 0 <= window.used(clock) <= 10 + 1e-6
        assert window.wait(clock, 1, 5) <= 2 * WINDOW_S + 1e-3


# ---------------------------------------------------------------- budgets, prices, partitions


DAYS = [
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
]
"""Moments around changes of clocks, years and leap days."""


@pytest.mark.parametrize("moment", DAYS, ids=str)
def test_day_of_a_budget_is_utc_s_wherever_the_machine_is(zone: str, moment: datetime):
    quota = Quota(usd_per_day=1.0, usd_per_month=9.0)

    day, month = claims([quota], Who("t", "a", "d"), 0, moment.timestamp())

    assert day.key.endswith(f"{moment:%Y-%m-%d}") and month.key.endswith(f"{moment:%Y-%m}")
    assert 0 < day.ends_at - moment.timestamp() <= 86_400
    assert datetime.fromtimestamp(day.ends_at, UTC).hour == 0
    assert datetime.fromtimestamp(month.ends_at, UTC).day == 1


@pytest.mark.parametrize("moment", DAYS, ids=str)
def test_spent_budget_lasts_to_the_end_of_utc_s_day(zone: str, moment: datetime, tmp_path: Path):
    clock = Clock()
    budget = Budget(tmp_path, clock)
    clock.now = moment.replace(hour=0, minute=0, second=0).timestamp()
    budget.spend("d", 1.0)

    clock.now += 86_399
    last = budget.spent("d")
    clock.now += 1

    assert (last, budget.spent("d")) == (1.0, 0.0)


def test_clock_that_goes_back_over_midnight_spends_no_budget_twice(tmp_path: Path):
    clock = Clock()
    clock.now = datetime(2026, 7, 1, 23, 59, 59, tzinfo=UTC).timestamp()
    budget = Budget(tmp_path, clock)
    budget.spend("d", 1.0)

    clock.now -= 3600

    assert budget.spent("d") == 1.0


@pytest.mark.parametrize("moment", DAYS, ids=str)
def test_records_lie_under_utc_s_day(zone: str, moment: datetime):
    place = parquet.partition(exchange("a", started_at=moment.timestamp()))

    assert f"date={moment:%Y-%m-%d}" in place


def test_price_changes_at_utc_s_midnight(zone: str):
    prices = next(p for p in PRICES.values() if p)
    begins: date = prices[0].since
    midnight = datetime(begins.year, begins.month, begins.day, tzinfo=UTC).timestamp()
    model = next(name for name, p in PRICES.items() if p)

    assert price_at(PRICES, model, midnight) is not None
    assert price_at(PRICES, model, midnight - 1) is None


# ---------------------------------------------------------------- leap seconds


def test_second_that_comes_twice_counts_once_for_a_key():
    leap = datetime(2017, 1, 1, tzinfo=UTC)
    key = Key(key="0123456789abcdef", expires=leap)
    clock = Clock()
    auth = Authenticator([key], now=clock)

    clock.now = leap.timestamp() - 0.5
    auth.authenticate({b"api-key": b"0123456789abcdef"})
    clock.now = leap.timestamp()
    with pytest.raises(Unauthenticated):
        auth.authenticate({b"api-key": b"0123456789abcdef"})


def test_leap_second_in_a_file_is_told_and_not_guessed():
    content = b'{"key":"0123456789abcdef","expires":"2016-12-31T23:59:60Z"}'

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(content, type=Key)


async def test_second_that_comes_twice_lets_nobody_in_twice():
    clock = Clock()
    ledger = MemoryLedger(clock)
    first = await taken(ledger, 5)

    clock.now -= 1

    assert (first, await taken(ledger, 5)) == (5, 0)
