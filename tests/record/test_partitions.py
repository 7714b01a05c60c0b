"""However many domains there are, each has its file, whole and in order."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from proxy.protocol.parquet import Rows, kind_of
from proxy.record import query
from proxy.record.compact import Retention, compact
from proxy.record.partitions import Partitions
from tests.record.examples import exchange, ids, shadowed, shelf, write


@pytest.fixture
def most_files() -> Iterator[int]:
    """How many files this process may have open: 20 beside those that it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_domains_than_open_files_are_compacted(tmp_path: Path, most_files: int):
    write(tmp_path, *(exchange(f"{n:04}", domain=f"d{n}") for n in range(most_files)))

    report = compact(shelf(tmp_path), Retention())

    assert report.files == most_files
    assert sorted(ids(tmp_path)) == [f"{n:04}" for n in range(most_files)]


def test_more_domains_than_open_files_are_asked_in_segments(tmp_path: Path, most_files: int):
    write(tmp_path, *(exchange(f"{n:04}", domain=f"d{n}") for n in range(most_files)))

    with query.opened(shelf(tmp_path)) as connection:
        found = query.run(connection, "SELECT count(DISTINCT domain) FROM exchanges")
        ((count,),) = (row for batch in found.batches() for row in batch)

    assert count == most_files


def test_what_was_spooled_in_turns_becomes_one_file_in_order(tmp_path: Path):
    numbers = range(5000)

    with Partitions(tmp_path, "job", Rows()) as partitions:
        partitions.add(exchange(f"{number:04}") for number in numbers)

    (path,) = (tmp_path / file for file in partitions.files)
    assert pq.read_table(path).column("id").to_pylist() == [f"{number:04}" for number in numbers]
    assert pq.ParquetFile(path).num_row_groups == 2
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_small_spools_share_a_row_group(tmp_path: Path):
    heavy = msgspec.Raw(msgspec.json.encode("x" * 20_000_000))

    with Partitions(tmp_path, "job", Rows()) as partitions:
        for number in range(4):
            partitions.add([exchange(f"{number}"), exchange("heavy", domain="b", request=heavy)])

    groups = {file: pq.ParquetFile(tmp_path / file).num_row_groups for file in partitions.files}
    assert [count for file, count in groups.items() if "domain=api" in file] == [1]
    assert [count for file, count in groups.items() if "domain=b" in file] == [2]
    assert partitions.written == 8


def test_kinds_may_share_a_file_whatever_their_day_and_domain(tmp_path: Path):
    with Partitions(tmp_path, "job", Rows(), kind_of) as partitions:
        partitions.add([exchange("a"), exchange("b", domain="chat"), shadowed("s", "a")])

    assert partitions.files == ["exchanges/job.parquet", "shadows/job.parquet"]
    assert partitions.written == 3
