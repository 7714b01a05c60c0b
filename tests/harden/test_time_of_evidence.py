"""Clocks that jump and zones with odd days: what is kept, and what is concluded from it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="needs the train or the report extra")
pytest.importorskip("gguf", reason="needs the embedded or the train extra")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.commands.report import moment
from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import Record
from proxy.record import query
from proxy.record.compact import Retention, compact
from proxy.report import ab, pairs, reading
from tests.harden.test_time import DAYS, zone
from tests.record.examples import DAY, NOW, exchange, ids, shelf, write
from tests.report.examples import simulated
from tests.trainer.flywheel import settings_files
from tests.trainer.promotion.traffic import Site, site, tried
from trainer.flywheel import settings, state, triggers
from trainer.promotion.steps import iso, seconds

__all__ = ["zone"]
YEAR = 365 * DAY
OURS, THEIRS = "canary:api-v2", "champion:api-v1"
TWO_DAYS = Retention(days=2)
FOREVER = Retention()


# ---------------------------------------------------------------- retention


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_two_days_are_48_hours_wherever_the_machine_is(zone: str, day: datetime, tmp_path: Path):
    at = day.timestamp()
    write(tmp_path, exchange("a", started_at=at))
    compact(shelf(tmp_path), FOREVER, at)

    compact(shelf(tmp_path), TWO_DAYS, at + 2 * DAY - 1)
    last = ids(tmp_path)
    compact(shelf(tmp_path), TWO_DAYS, at + 2 * DAY + 1)

    assert (last, ids(tmp_path)) == (["a"], [])


@pytest.mark.parametrize("where", ["segment", "archive"])
def test_clock_that_goes_back_deletes_nothing_and_puts_nothing_off(where: str, tmp_path: Path):
    write(tmp_path, exchange("a"))
    if where == "archive":
        compact(shelf(tmp_path), FOREVER, NOW)

    compact(shelf(tmp_path), TWO_DAYS, NOW - YEAR)
    kept = ids(tmp_path)
    compact(shelf(tmp_path), TWO_DAYS, NOW + 2 * DAY + 1)

    assert (kept, ids(tmp_path)) == (["a"], [])


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_day_of_a_report_begins_at_utc_s_midnight(zone: str, day: datetime):
    midnight = day.replace(hour=0, minute=0, second=0)

    assert moment(f"{day:%Y-%m-%d}") == midnight.timestamp()


def late(record: Record, jump_s: float) -> Record:
    """The record, or as it is where the clock jumped at the 50th of them."""
    if isinstance(record, Exchange) and record.started_at >= NOW + 60 * 50:
        return msgspec.structs.replace(record, started_at=record.started_at + jump_s)
    return record


def reported(directory: Path, jump_s: float) -> ab.Report:
    """On 100 pairs; the clock jumps after the first 50."""
    records = simulated(100, cloud=0.9, local=0.7)
    directory.mkdir()
    write(directory, *(late(one, jump_s) for one in records))
    contest, scope = (
        pairs.Contest(baseline="azure", candidate="local"),
        ab.Scope(since=0, until=9e9),
    )
    left_out = Counter[pairs.LeftOut]()
    with query.opened(shelf(directory)) as connection:
        found = pairs.pairs(
            reading.paired(connection, shelf(directory).rows, scope), contest, {}, left_out
        )
        return ab.report(found, contest, scope, left_out)


@pytest.mark.parametrize("jump_s", [-YEAR, -60 * 50, YEAR])
def test_verdict_of_every_look_is_the_same_whatever_the_clock_said(jump_s: float, tmp_path: Path):
    steady = reported(tmp_path / "steady", 0)

    jumped = reported(tmp_path / "jumped", jump_s)

    assert steady.verdict.n == 100
    assert jumped.verdict == steady.verdict
    assert jumped.course[-1] == steady.course[-1]
    assert jumped.figures.accuracy == steady.figures.accuracy


# ---------------------------------------------------------------- promotions


@given(at=st.floats(0, 4e9))
def test_time_in_a_champion_file_is_read_as_it_was_written(at: float):
    assert -1e-6 <= at - seconds(iso(at)) < 1


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_stage_begins_at_the_same_second_in_every_zone(zone: str, day: datetime):
    assert seconds(iso(day.timestamp())) == day.timestamp()


def spoilt(at: Site) -> None:
    """Traffic that shows the candidate to be worse."""
    at.later(3)
    at.served(THEIRS, 20)
    at.served(OURS, 8, tried("api-v2", "invalid"), tried(None))


@pytest.mark.parametrize("back_s", [1, 3600, YEAR])
def test_bad_candidate_is_stopped_though_the_clock_went_back_in_its_stage(
    back_s: float, tmp_path: Path
):
    at = site(tmp_path)
    at.promote()
    at.later(-back_s)
    at.promote()

    spoilt(at)

    assert at.promote().word == "rolled back"


def test_candidate_that_nobody_asks_is_taken_out_though_the_clock_went_back(tmp_path: Path):
    at = site(tmp_path)
    at.promote()
    at.later(-YEAR)
    at.promote()

    at.later(at.settings.patience_s + 1)

    assert "too little traffic" in at.promote().reason


@pytest.mark.parametrize("on_s", [3600, YEAR])
def test_clock_that_leaps_ahead_makes_no_candidate_grow(on_s: float, tmp_path: Path):
    at = site(tmp_path, patience_s=2 * YEAR)
    at.promote()

    at.later(on_s)
    waiting = at.promote()

    assert (waiting.word, at.alias.candidate.share) == ("waiting", 0.25)


def test_cooldown_of_a_clock_that_was_ahead_holds_no_longer_than_any_other(tmp_path: Path):
    at = site(tmp_path)
    # Not a year: files have the time of this machine, and are not read where they are too old.
    at.later(100 * DAY)
    at.promote()
    spoilt(at)
    taken_back = at.promote()

    at.later(-100 * DAY + at.settings.cooldown_s + 1)

    assert taken_back.word == "rolled back"
    assert at.promote("api-v3", run="run-2").word == "waiting"


# ---------------------------------------------------------------- the calendar


def domain(directory: Path, **calendar: object) -> settings.Domain:
    path = settings_files.write(
        directory,
        directory / "record",
        "smollm2-135m-instruct",
        triggers={"rows": None, "drift": None, "calendar": calendar},
    )
    (found,) = settings.domains(path)
    return found


def begun(there: settings.Domain, at: float) -> None:
    state.Run.begin(
        there.runs,
        state.Manifest(
            id=iso(at), domain="all", cause="test", adapter="all-v1", created_at=iso(at),
            until=at, new_rows=0, recipe=there.recipe,
        ),
    )  # fmt: skip


def is_due(there: settings.Domain, at: float) -> bool:
    return any(one.due for one in triggers.readings(there, at))


def test_run_of_a_clock_that_was_ahead_does_not_put_off_the_next(tmp_path: Path):
    there = domain(tmp_path, every_days=7)
    begun(there, NOW)
    begun(there, NOW + YEAR)

    assert not is_due(there, NOW + 6 * DAY)
    assert is_due(there, NOW + 8 * DAY)


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_daily_run_is_due_once_between_two_of_utc_s_midnights(
    zone: str, day: datetime, tmp_path: Path
):
    there = domain(tmp_path, weekday="daily", hour=0)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    begun(there, midnight + 1)

    assert not is_due(there, midnight + DAY - 1)
    assert is_due(there, midnight + DAY + 1)
