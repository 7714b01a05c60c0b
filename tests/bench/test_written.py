"""The large record that queries are measured on is one that the proxy might have written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from bench.growth.written import DOMAINS, write
from proxy.protocol.parquet import Rows
from proxy.record.compact import Retention, compact
from tests.record.examples import DAY, NOW, shelf

COUNT = 2000


def test_every_row_is_what_the_proxy_makes_of_its_exchange(tmp_path: Path):
    write(tmp_path, COUNT, NOW)

    rows = Rows()
    tables = [pq.read_table(path, partitioning=None) for path in tmp_path.rglob("*.parquet")]
    whole = {"exchange": rows.exchanges, "shadow": rows.shadows, "feedback": rows.feedback}
    for table in tables:
        (column,) = set(whole) & set(table.column_names)
        records = [one for batch in table.to_batches() for one in whole[column](batch)]
        assert rows.table(records).equals(table)


def test_exchanges_are_as_many_as_asked_for_and_all_different(tmp_path: Path):
    write(tmp_path, COUNT, NOW)

    found = list(shelf(tmp_path).exchanges())

    assert len(found) == len({one.id for one in found}) == COUNT
    assert len({bytes(one.request) for one in found}) == COUNT
    assert set(Counter(one.domain for one in found).values()) == {COUNT // DOMAINS}
    assert min(one.started_at for one in found) > NOW - 30 * DAY
    assert max(one.started_at for one in found) < NOW


def test_files_are_those_of_a_compaction(tmp_path: Path):
    write(tmp_path, COUNT, NOW)
    files = list((tmp_path / "archive").rglob("*.parquet"))
    report = compact(shelf(tmp_path), Retention())

    days = {path.parent for path in files if "/exchanges/date=2026-01-20/" in path.as_posix()}
    assert len(days) == DOMAINS
    assert report.segments == 1 and report.records > COUNT // 100
    assert len(list(shelf(tmp_path).exchanges())) == COUNT
