"""What is read of a record is what was asked for: all else may be unreadable."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.record import query
from proxy.record.compact import Retention, compact
from tests.record.examples import (
    DAY,
    NOW,
    archived,
    exchange,
    feedback,
    shadowed,
    shelf,
    spoil,
    write,
)

LATER = NOW + 3 * DAY


@pytest.fixture
def two_days(tmp_path: Path) -> Path:
    """`old` and, three days later, `new`, with what belongs to them; all in the archive, where the
    ids beside them leave nothing to be skipped by the least and greatest of a file."""
    write(tmp_path, *(exchange(id, started_at=at) for id in "az" for at in (NOW, LATER)))
    late = {"started_at": LATER, "request_id": "req-both"}
    write(tmp_path, exchange("old", request_id="req-both"), exchange("new", **late))
    write(tmp_path, shadowed("s-old", "old"), feedback("f-old", "old"))
    write(tmp_path, feedback("f-new", "new", given_at=LATER))
    compact(shelf(tmp_path), Retention())
    return tmp_path


def test_request_that_came_twice_is_found_as_it_was_last(two_days: Path):
    write(two_days, exchange("other", tenant="other", started_at=LATER, request_id="req-both"))

    found = shelf(two_days).find("req-both", "t")

    assert found is not None and found.id == "new"
    assert shelf(two_days).find("old", "other") is None


def test_new_exchange_is_found_though_the_old_ones_are_unreadable(two_days: Path):
    spoil(archived(two_days), "exchange")

    assert shelf(two_days).find("new") is not None


def test_old_exchange_is_found_by_the_ids_of_the_new_ones(two_days: Path):
    spoil(archived(two_days, day=LATER), "exchange")

    assert shelf(two_days).find("old") is not None


def test_of_a_file_the_row_group_is_read_that_has_the_id(tmp_path: Path):
    write(tmp_path, *(exchange(f"{number:04}") for number in range(4097)))
    compact(shelf(tmp_path), Retention())

    found = shelf(tmp_path).find("4096")

    assert found is not None and found.request_id == "req-4096"


def test_days_before_are_not_opened(two_days: Path):
    for kind in ("exchanges", "shadows", "feedback"):
        spoil(archived(two_days, kind))

    since = LATER - DAY
    opened = shelf(two_days)

    assert [one.id for one in opened.exchanges(since)] == ["a", "z", "new"]
    assert [one.id for one in opened.shadows(since)] == []
    assert [one.id for one in opened.feedback(since)] == ["f-new"]


def test_more_files_than_are_open_at_a_time_are_all_read(tmp_path: Path):
    write(tmp_path, *(exchange(f"{n:03}", domain=f"d{n:03}") for n in range(130)))
    compact(shelf(tmp_path), Retention())

    assert [one.id for one in shelf(tmp_path).exchanges()] == [f"{n:03}" for n in range(130)]


@pytest.mark.parametrize("domain", ["x/y", "", "a=b", "ü %2F", "null"])
def test_domains_that_are_not_asked_for_are_not_opened(tmp_path: Path, domain: str):
    write(tmp_path, exchange("a", domain=domain))
    compact(shelf(tmp_path), Retention())
    write(tmp_path, exchange("b", domain="broken"))
    compact(shelf(tmp_path), Retention())
    (broken,) = tmp_path.rglob("domain=broken/*.parquet")
    spoil(broken)

    with query.opened(shelf(tmp_path)) as connection:
        sql = "SELECT id, domain FROM exchanges WHERE domain = $domain"
        found = query.run(connection, sql, {"domain": domain})
        rows = [row for batch in found.batches() for row in batch]

    assert rows == [("a", domain)]
