"""Whatever happens to a compaction, every exchange is there, and once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from proxy.protocol.parquet import EXCHANGES, FEEDBACK
from proxy.protocol.sealing import Keyring
from proxy.protocol.segments import Encoder, Segment, segments
from proxy.record import journal
from proxy.record.archive import Archive, ArchiveUnavailable, DirectoryArchive
from proxy.record.compact import Retention, compact, keep_rows
from proxy.record.journal import Job
from tests.record.buckets import Bucket
from tests.record.examples import (
    DAY,
    NOW,
    archived,
    exchange,
    feedback,
    ids,
    shadowed,
    shelf,
    write,
)

FOREVER = Retention()


def test_segments_become_parquet_by_date_and_domain(tmp_path: Path, archive: Archive):
    first = write(tmp_path, exchange("a"), exchange("b", domain="x/y"), feedback("f", "a"))
    write(tmp_path, exchange("c", started_at=NOW - DAY))

    report = compact(shelf(tmp_path, archive), FOREVER)

    name = f"{first.stem}_{journal.mark(tmp_path)}.parquet"
    assert archive.paths() == [
        f"exchanges/date=2026-01-31/domain=api/{name}",
        f"exchanges/date=2026-02-01/domain=api/{name}",
        f"exchanges/date=2026-02-01/domain=x%2Fy/{name}",
        f"feedback/date=2026-02-01/{name}",
    ]
    assert (report.segments, report.records, report.files) == (2, 4, 4)
    assert segments(tmp_path) == []
    assert sorted(ids(tmp_path, archive)) == ["a", "b", "c"]


def test_exchange_comes_back_as_it_was(tmp_path: Path):
    write(tmp_path, exchange("a"))
    before = shelf(tmp_path).find("req-a")

    compact(shelf(tmp_path), FOREVER)

    assert shelf(tmp_path).find("a") == shelf(tmp_path).find("req-a") == before
    assert shelf(tmp_path).find("z") is None


def test_segment_that_is_being_written_is_left_alone(tmp_path: Path):
    write(tmp_path, exchange("a"))
    segment = Segment(tmp_path)
    segment.append(Encoder().encode([exchange("b")]))

    report = compact(shelf(tmp_path), FOREVER)

    assert (report.segments, report.waiting) == (1, 1)
    assert segments(tmp_path) == [segment.path]
    assert ids(tmp_path) == ["a", "b"]


def test_second_run_has_nothing_to_do(tmp_path: Path):
    write(tmp_path, exchange("a"))
    compact(shelf(tmp_path), FOREVER)

    report = compact(shelf(tmp_path), FOREVER)

    assert (report.segments, report.files) == (0, 0)
    assert ids(tmp_path) == ["a"]


class Killed(Exception):
    pass


class Dying(DirectoryArchive):
    """An archive in whose hands the process dies."""

    def __init__(self, directory: Path, puts: int) -> None:
        super().__init__(directory)
        self.puts = puts

    def put(self, path: str, file: Path) -> None:
        if self.puts == 0:
            raise Killed
        self.puts -= 1
        super().put(path, file)


@pytest.mark.parametrize("puts", [0, 1, 2])
def test_run_that_is_killed_while_it_writes_is_undone(tmp_path: Path, puts: int):
    write(tmp_path, exchange("a"), exchange("b", domain="x"), feedback("f", "a"))
    dying = Dying(tmp_path / "archive", puts)

    with pytest.raises(Killed):
        compact(shelf(tmp_path, dying), FOREVER)
    between = sorted(ids(tmp_path))
    compact(shelf(tmp_path), FOREVER)

    assert between == sorted(ids(tmp_path)) == ["a", "b"]
    assert len(DirectoryArchive(tmp_path / "archive").paths()) == 3
    assert segments(tmp_path) == []


def test_what_an_undone_run_left_does_not_stay_when_it_is_not_written_again(tmp_path: Path):
    write(tmp_path, exchange("a"), exchange("b", domain="x", started_at=NOW - 5 * DAY))
    with pytest.raises(Killed):
        compact(shelf(tmp_path, Dying(tmp_path / "archive", 1)), FOREVER)

    compact(shelf(tmp_path), Retention(days=2), NOW)

    assert ids(tmp_path) == ["a"]


def test_run_that_is_killed_while_it_deletes_segments_is_finished(tmp_path: Path):
    one, other = write(tmp_path, exchange("a")), write(tmp_path, exchange("b"))
    copy = other.read_bytes()
    compact(shelf(tmp_path), FOREVER)
    # As it is when the process dies between the two.
    other.write_bytes(copy)
    journal.write(tmp_path, Job(one.stem, [one.name, other.name], "written"))

    between = ids(tmp_path)
    compact(shelf(tmp_path), FOREVER)

    assert sorted(between) == sorted(ids(tmp_path)) == ["a", "b"]
    assert segments(tmp_path) == []


def test_two_runs_at_once_are_one(tmp_path: Path):
    with journal.exclusive(tmp_path), pytest.raises(journal.Busy):
        compact(shelf(tmp_path), FOREVER)


def test_several_proxies_have_one_archive(tmp_path: Path, archive: Archive):
    for name in ("one", "other"):
        write(tmp_path / name, exchange(name))
        compact(shelf(tmp_path / name, archive), FOREVER)

    assert sorted(ids(tmp_path / "third", archive)) == ["one", "other"]


def test_bucket_that_is_away_costs_nothing_but_time(tmp_path: Path, s3: Bucket):
    write(tmp_path, exchange("a"))
    archive = s3.archive
    s3.stop()

    with pytest.raises(ArchiveUnavailable):
        compact(shelf(tmp_path, archive), FOREVER)
    s3.start()
    compact(shelf(tmp_path, archive), FOREVER)

    assert ids(tmp_path, archive) == ["a"]
    assert segments(tmp_path) == []


def test_torn_tail_costs_nothing_that_was_whole(tmp_path: Path):
    path = write(tmp_path, exchange("a"), exchange("b"))
    path.write_bytes(path.read_bytes()[:-5])

    compact(shelf(tmp_path), FOREVER)

    assert ids(tmp_path) == ["a"]


def test_encrypted_record_stays_encrypted(tmp_path: Path):
    keyring = Keyring({"1": b"k" * 32}, "1")
    write(tmp_path, exchange("a"), keyring=keyring)

    compact(shelf(tmp_path, keyring=keyring), FOREVER)

    (path,) = (tmp_path / "archive").rglob("*.parquet")
    assert b"Ping a." not in path.read_bytes()
    assert shelf(tmp_path, keyring=keyring).find("a").id == "a"


def test_file_of_an_earlier_version_stays_readable(tmp_path: Path):
    write(tmp_path, exchange("a"))
    compact(shelf(tmp_path), FOREVER)
    (path,) = (tmp_path / "archive").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["assigned"]), path)
    write(tmp_path, exchange("b", assigned="split:azure"))
    compact(shelf(tmp_path), FOREVER)

    assert ids(tmp_path) == ["a", "b"]
    assert shelf(tmp_path).dataset("exchanges").to_table()["assigned"].to_pylist() == [
        None,
        "split:azure",
    ]


# ---------------------------------------------------------------- retention


def test_file_of_an_earlier_version_is_rewritten_as_it_was(tmp_path: Path):
    write(tmp_path, exchange("old", started_at=NOW - DAY), exchange("young"))
    write(tmp_path, exchange("young-too", started_at=NOW - DAY + 60))
    compact(shelf(tmp_path), FOREVER, NOW)
    path = archived(tmp_path, day=NOW - DAY)
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["assigned"]), path)

    report = compact(shelf(tmp_path), Retention(days=1), NOW + 30)

    assert report.expired == 1
    assert ids(tmp_path) == ["young-too", "young"]
    assert "assigned" not in pq.read_schema(path).names


def test_file_that_another_machine_deletes_first_is_no_error(tmp_path: Path, archive: Archive):
    write(tmp_path, exchange("old", started_at=NOW - 10 * DAY), exchange("young"))
    compact(shelf(tmp_path, archive), FOREVER, NOW)
    opened = shelf(tmp_path, archive)
    (path, _) = opened.stored(EXCHANGES)
    archive.delete(path)

    assert keep_rows(opened, path, pc.scalar(False)) == 0


def test_what_is_too_old_goes_from_segments_and_archive(tmp_path: Path, archive: Archive):
    for _ in ("to the archive", "from the segment"):
        write(
            tmp_path,
            exchange("old", started_at=NOW - 31 * DAY),
            exchange("young", started_at=NOW - 29 * DAY),
            feedback("f-old", "old", given_at=NOW - 31 * DAY),
        )
        compact(shelf(tmp_path, archive), FOREVER, NOW)

    report = compact(shelf(tmp_path, archive), Retention(days=30), NOW)

    assert ids(tmp_path, archive) == ["young", "young"]
    assert shelf(tmp_path, archive).files(FEEDBACK) == []
    assert report.expired == 4


def test_tenant_may_have_its_own_time(tmp_path: Path):
    retention = Retention(days=30, tenants={"brief": 2, "long": 300})
    old = NOW - 10 * DAY
    write(
        tmp_path,
        exchange("usual", started_at=old),
        exchange("brief", tenant="brief", started_at=old),
        exchange("long", tenant="long", started_at=NOW - 100 * DAY),
        exchange("unusual", started_at=NOW - 100 * DAY),
    )
    compact(shelf(tmp_path), FOREVER, NOW)

    compact(shelf(tmp_path), retention, NOW)

    assert sorted(ids(tmp_path)) == ["long", "usual"]


def test_within_the_last_day_the_hour_counts(tmp_path: Path):
    write(
        tmp_path,
        exchange("before", started_at=NOW - 2 * DAY - 60),
        exchange("after", started_at=NOW - 2 * DAY + 60),
    )
    compact(shelf(tmp_path), FOREVER, NOW)

    compact(shelf(tmp_path), Retention(days=2), NOW)

    assert ids(tmp_path) == ["after"]


def test_without_a_limit_nothing_goes(tmp_path: Path):
    write(tmp_path, exchange("ancient", started_at=1.0))

    report = compact(shelf(tmp_path), FOREVER)

    assert report.expired == 0
    assert shelf(tmp_path).files(EXCHANGES) != []


def test_shadows_are_kept_as_long_as_exchanges(tmp_path: Path, archive: Archive):
    write(tmp_path, shadowed("s-1", "a"), shadowed("s-2", "b", tenant="brief"))
    compact(shelf(tmp_path, archive), FOREVER, NOW)

    compact(shelf(tmp_path, archive), Retention(days=30, tenants={"brief": 2}), NOW + 4 * DAY)

    assert [one.id for one in shelf(tmp_path, archive).shadows()] == ["s-1"]
