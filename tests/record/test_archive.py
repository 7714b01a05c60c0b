"""Every archive keeps files whole, by path."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from proxy.errors import BadConfig
from proxy.record.archive import (
    Archive,
    ArchiveUnavailable,
    DirectoryArchive,
    Gone,
    open_archive,
)
from proxy.record.settings import ArchiveSettings, RecordSettings
from tests.record.buckets import Bucket

PATH = "exchanges/date=2026-01-01/domain=a%2Fb/j.parquet"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    return path


def test_what_is_put_is_listed_and_read(archive: Archive, file: Path):
    archive.put(PATH, file)

    filesystem, prefix = archive.reading()
    rows = pyarrow.dataset.dataset([prefix + PATH], filesystem=filesystem)
    assert archive.paths() == archive.paths("exchanges") == [PATH]
    assert archive.paths("feedback") == []
    assert archive.get(PATH) == file.read_bytes()
    assert rows.to_table().to_pydict() == {"a": [1, 2]}


def test_what_is_put_again_is_replaced(archive: Archive, file: Path):
    archive.put(PATH, file)
    file.write_bytes(b"new")

    archive.put(PATH, file)

    assert archive.get(PATH) == b"new"
    assert archive.paths() == [PATH]


def test_what_was_replaced_has_another_version(archive: Archive, file: Path):
    archive.put(PATH, file)
    (before,) = archive.listed()
    (again,) = archive.listed("exchanges")
    file.write_bytes(file.read_bytes()[::-1])

    archive.put(PATH, file)

    (after,) = archive.listed()
    assert before == again
    assert before[:2] == after[:2] == (PATH, file.stat().st_size)
    assert before.version != after.version


def test_what_is_not_there_is_told(archive: Archive):
    with pytest.raises(Gone):
        archive.get(PATH)


def test_what_is_deleted_is_gone_and_may_be_gone_before(archive: Archive, file: Path):
    archive.put(PATH, file)

    archive.delete(PATH)
    archive.delete(PATH)

    assert archive.paths() == []


def test_directory_is_for_its_owner_only(tmp_path: Path, file: Path):
    DirectoryArchive(tmp_path / "archive").put(PATH, file)

    made = list((tmp_path / "archive").rglob("*"))
    assert {path.stat().st_mode & 0o077 for path in [tmp_path / "archive", *made]} == {0}


def test_bucket_that_is_away_is_told(s3: Bucket, file: Path):
    archive = s3.archive
    s3.stop()

    with pytest.raises(ArchiveUnavailable):
        archive.put(PATH, file)
    with pytest.raises(ArchiveUnavailable):
        archive.paths()


def test_archive_is_where_the_settings_say(tmp_path: Path, s3: Bucket, file: Path):
    there = ArchiveSettings(url=s3.url, options=s3.options)

    open_archive(RecordSettings(archive=there)).put(PATH, file)
    open_archive(RecordSettings(directory=tmp_path / "record")).put(PATH, file)

    assert s3.archive.paths() == [PATH]
    assert (tmp_path / "record" / "archive" / PATH).is_file()


def test_url_of_nothing_we_know_is_refused():
    with pytest.raises(BadConfig, match=r"\$\.record\.archive"):
        open_archive(RecordSettings(archive=ArchiveSettings(url="gopher://x/y")))
