from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.record.archive import Archive, DirectoryArchive
from tests.record.buckets import Bucket, bucket


@pytest.fixture
def s3() -> Iterator[Bucket]:
    """A bucket over real HTTP."""
    with bucket() as made:
        yield made


@pytest.fixture(params=["directory", "bucket"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    """Each kind of archive."""
    if request.param == "directory":
        return DirectoryArchive(tmp_path / "elsewhere")
    made: Bucket = request.getfixturevalue("s3")
    return made.archive
