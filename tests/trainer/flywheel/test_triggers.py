"""When a run is due: falling shares, tested at every look, and the calendar."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgspec
import pytest

from proxy.protocol.exchange import VERSION, Answer, Attempt, Exchange
from proxy.protocol.openai import FunctionCall, ToolCall
from trainer.flywheel import triggers
from trainer.flywheel.settings import CalendarSettings, FallingSettings
from trainer.flywheel.triggers import quality
from trainer.sources.exchanges import Heard

SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def attempt(city: str, adapter: str | None = None) -> Attempt:
    called = FunctionCall("weather", f'{{"city": "{city}"}}')
    return Attempt(
        kind="primary",
        backend="local" if adapter else "cloud",
        adapter=adapter,
        model=None if adapter else "gpt-4o",
        outcome="completed",
        answer=Answer(tool_calls=[ToolCall("call_1", called)]),
        started_at=0,
        total_s=1,
    )


def heard(conversation: str, ours: str, cloud: str | None, thumb: bool | None = None) -> Heard:
    """Champion `geo-v7` says one city, and the cloud, where it was asked, another."""
    answers = [attempt(ours, "geo-v7")] + ([attempt(cloud)] if cloud else [])
    exchange = Exchange(
        id=f"chatcmpl-{conversation}",
        request_id="req_1",
        version=VERSION,
        started_at=0,
        total_s=1,
        tenant="default",
        caller="anonymous",
        domain="geo",
        route="geo",
        model="gpt-4o",
        stream=False,
        conversation=conversation,
        request=msgspec.Raw(b"{}"),
        attempts=answers[:1],
        outcome="completed",
        status=200,
    )
    return Heard(exchange, answers, answers[1] if cloud else None, thumb)


def test_each_conversation_tells_once():
    found = quality(
        [
            heard("a", "Oslo", "Oslo", True),
            heard("a", "Oslo", "Rome", False),
            heard("b", "Oslo", "Rome"),
            heard("c", "Oslo", None, False),
        ],
        "geo-v7",
    )

    assert (found.agreed, found.liked) == ([1.0, 0.0], [1.0, 0.0])


def test_answers_of_another_adapter_tell_nothing():
    assert quality([heard("a", "Oslo", "Oslo", True)], "geo-v6") == ([], [])


def fell(seen: list[float], floor: float | None = 0.8) -> triggers.Reading:
    return triggers._fell("agreement", seen, floor, FallingSettings(), "geo-v7 agrees")


@pytest.mark.parametrize(
    ("right", "of", "due"), [(45, 100, True), (75, 100, False), (90, 100, False), (0, 2, False)]
)
def test_a_share_has_fallen_when_that_is_shown(right, of, due):
    reading = fell([1.0] * right + [0.0] * (of - right))

    assert (reading.due, reading.threshold) == (due, 0.8)
    assert f"{right / of:.0%} of {of} times" in reading.sentence


def test_looking_after_each_answer_raises_few_false_alarms():
    chance, alarms = random.Random(1), 0
    for _ in range(60):
        seen = [float(chance.random() < 0.8) for _ in range(200)]
        alarms += any(fell(seen[:n]).due for n in range(10, 201, 10))

    assert alarms <= 6


def test_without_observations_or_without_a_floor_nothing_is_due():
    assert not fell([]).due and fell([]).value is None
    assert not fell([0.0] * 50, floor=None).due
    assert "set `triggers.agreement.floor`" in fell([0.0], floor=None).sentence


@pytest.mark.parametrize(
    ("calendar", "days"),
    [
        (CalendarSettings(every_days=30), 30),
        (CalendarSettings(weekday="sun", hour=3), 9 / 24),
        (CalendarSettings(weekday="sun", hour=13), 7 - 1 / 24),
        (CalendarSettings(weekday="sat", hour=12), 1),
        (CalendarSettings(weekday="daily", hour=11), 1 / 24),
        (CalendarSettings(weekday="daily", hour=11, every_days=0.01), 0.01),
    ],
)
def test_a_calendar_says_how_long_ago_is_too_long(calendar, days):
    assert triggers._limit(calendar, SUNDAY) == pytest.approx(days)


def test_a_calendar_names_a_time():
    with pytest.raises(ValueError, match="`every_days` or `weekday`"):
        CalendarSettings()
