"""What was spent is known after whatever happened, and a new day begins with nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.budget import Budget, BudgetUnknown

NOON = 1_800_000_000.0
DAY = 24 * 60 * 60


def test_sums_are_kept_by_domain(tmp_path: Path):
    budget = Budget(tmp_path)
    budget.spend("geo", 0.5)
    total = budget.spend("geo", 0.25)
    budget.spend("api", 2)

    again = Budget(tmp_path)

    assert total == again.spent("geo") == 0.75
    assert (again.spent("api"), again.spent("chat")) == (2, 0)


def test_new_day_begins_with_nothing_spent(tmp_path: Path):
    Budget(tmp_path, lambda: NOON).spend("geo", 5)
    tomorrow = Budget(tmp_path, lambda: NOON + DAY)

    assert tomorrow.spent("geo") == 0
    assert tomorrow.spend("geo", 1) == 1


def test_file_that_was_torn_or_written_by_others_is_no_budget(tmp_path: Path):
    (tmp_path / "shadow-budget.json").write_bytes(b'{"day": "2026-')

    with pytest.raises(BudgetUnknown, match=r"shadow-budget.json: .*remove it"):
        Budget(tmp_path).spent("geo")
    with pytest.raises(BudgetUnknown):
        Budget(tmp_path).spend("geo", 1)


def test_directory_that_cannot_be_made_is_no_budget(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(BudgetUnknown, match="file"):
        Budget(tmp_path / "file" / "record").spend("geo", 1)


def test_proxies_that_share_a_directory_share_the_budget(tmp_path: Path):
    code = (
        "import sys, pathlib; from proxy.budget import Budget\n"
        "budget = Budget(pathlib.Path(sys.argv[1]))\n"
        "for _ in range(50): budget.spend('geo', 1)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}

    writers = [subprocess.Popen(command, env=environment) for _ in range(3)]
    codes = [writer.wait(timeout=60) for writer in writers]

    assert codes == [0, 0, 0]
    assert Budget(tmp_path).spent("geo") == 150
