"""Chance is the same each time, evenly spread, and each comparison has its own."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.comparison import Shadow, draw, side

MANY = [f"conv-{number}" for number in range(4000)]


def at(clock: str) -> float:
    return datetime.fromisoformat(f"2026-02-01T{clock}").replace(tzinfo=UTC).timestamp()


def test_draw_is_the_same_in_each_process_and_release():
    assert draw("shadow", "geo", "t\0conv-1") == pytest.approx(0.91429, abs=1e-5)


def test_draws_are_evenly_spread():
    tenths = Counter(int(draw("split", "geo", who) * 10) for who in MANY)

    assert sorted(tenths) == list(range(10))
    assert all(320 <= count <= 480 for count in tenths.values())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("shadow", "geo"), ("split", "geo")),
        (("shadow", "geo"), ("canary", "geo")),
        (("shadow", "geo"), ("shadow", "api")),
    ],
)
def test_draws_for_different_purposes_have_nothing_to_do_with_one_another(
    one: tuple[str, str], other: tuple[str, str]
):
    both = sum(draw(*one, who) < 0.5 and draw(*other, who) < 0.5 for who in MANY)

    assert 880 <= both <= 1120


@given(drawn=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_each_draw_falls_on_a_side(drawn: float):
    assert side({"azure": 1 / 3, "local": 1 / 3, "other": 1 / 3}, drawn) in (
        ["azure", "local", "other"][int(drawn * 3 - 1e-9)],
        ["azure", "local", "other"][min(2, int(drawn * 3 + 1e-9))],
    )


@pytest.mark.parametrize(
    ("hours", "clock", "is_open"),
    [
        (None, "12:00", True),
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "18:00", False),
        ("22:00-06:00", "23:30", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
    ],
)
def test_hours_are_of_the_day_and_may_pass_midnight(hours: str | None, clock: str, is_open: bool):
    assert Shadow(to="azure", hours=hours).is_open(at(clock)) is is_open


@pytest.mark.parametrize("hours", ["24:00-06:00", "8:00-18:00", "22:00", "22:60-23:00"])
def test_hours_that_no_clock_shows_are_refused(hours: str):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"to": "azure", "hours": hours}, Shadow)
