"""A record and a base model that the flywheel's tests share; nobody changes them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the train extra")

from tests.trainer.bases import tiny
from tests.trainer.flywheel import traffic


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    tiny(directory)
    return directory


@pytest.fixture(scope="package")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 exchanges of the domain `all`, by a real proxy."""
    directory = tmp_path_factory.mktemp("traffic") / "record"
    traffic.record(directory, 0, 120)
    return directory
