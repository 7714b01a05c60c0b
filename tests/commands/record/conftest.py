from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.record.recorded import ROUTES, run
from tests.record.examples import exchange, write


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    """Settings whose record has `a` in the archive and `b` in a segment."""
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    write(tmp_path / "record", exchange("a"))
    assert run(path, "compact") == 0
    write(tmp_path / "record", exchange("b", caller="other", domain="chat"))
    return path
