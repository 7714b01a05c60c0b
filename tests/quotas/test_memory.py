"""The sliding window, with a clock of the test's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.quotas.base import Charge, Claim
from proxy.quotas.memory import MemoryLedger, Window


def claim(limit: float, amount: float = 1) -> Claim:
    return Claim("k", "caller", "requests", limit, amount)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 30)), max_size=60))
async def test_told_wait_is_enough_and_not_too_much(steps):
    clock = Clock()
    ledger = MemoryLedger(clock)
    for pause, amount in steps:
        clock.now += pause
        verdict = await ledger.take([claim(30, amount)], "x")
        if verdict.refused:
            clock.now += verdict.wait_s - 0.01
            assert (await ledger.take([claim(30, amount)], "x")).refused
            clock.now += 0.02
            assert not (await ledger.take([claim(30, amount)], "x")).refused


@given(st.lists(st.floats(0, 20), max_size=200))
async def test_no_more_than_twice_the_limit_in_any_minute_and_the_limit_in_the_long_run(pauses):
    """The known error of a sliding window of two counters, which is bounded."""
    clock = Clock()
    ledger = MemoryLedger(clock)
    taken = []
    for pause in pauses:
        clock.now += pause
        if not (await ledger.take([claim(5)], "x")).refused:
            taken.append(clock.now)
    for start in taken:
        assert sum(start <= at < start + 60 for at in taken) <= 10
    if taken:
        assert len(taken) <= 5 * ((taken[-1] - taken[0]) / 60 + 2)


def test_burst_is_the_limit_from_a_fresh_start():
    window = Window(0.0)
    window.current = 10

    assert window.wait(30, 1, 10) == pytest.approx(30 + 6)
    window.advance(60)
    assert window.used(60) == 10
    assert window.used(90) == 5
    window.advance(180)
    assert window.used(180) == 0


async def test_counters_of_those_who_left_are_let_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("proxy.quotas.memory._MOST", 10)
    clock = Clock()
    ledger = MemoryLedger(clock)
    for number in range(10):
        await ledger.take([claim(5)._replace(key=str(number))], "x")
    await ledger.settle([Charge(Claim("d", "caller", "usd", 1, 0, clock.now + 1), 1.0)], [], "x")
    clock.now += 121

    await ledger.take([claim(5)], "x")

    assert (len(ledger._windows), len(ledger._sums)) == (1, 0)
