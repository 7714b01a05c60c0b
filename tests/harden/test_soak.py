"""Mixed traffic for a few seconds: every request is counted. `make soak MINUTES=60` goes on."""

from __future__ import annotations

from pathlib import Path

from tests.harden.soak import soak


async def test_every_request_is_counted_and_recorded_once_whatever_changes(tmp_path: Path):
    found = await soak(tmp_path, seconds=8, rate=25, seed=1)

    assert found.holds, str(found)
    assert found.made["promotions"] == 1
