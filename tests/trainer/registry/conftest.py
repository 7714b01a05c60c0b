from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.record.buckets import Bucket, bucket
from trainer.registry.registry import Registry


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture(params=["directory", "bucket"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """An empty one of each kind."""
    if request.param == "directory":
        return Registry(tmp_path / "registry")
    made: Bucket = request.getfixturevalue("server").empty()
    return Registry(made.url, made.options)
