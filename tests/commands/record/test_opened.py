"""What keeps a command from opening the record, told in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.record.recorded import ROUTES, run

ROOT = Path(__file__).parents[3]


def test_encrypted_record_needs_its_key(routes: Path, capsys: pytest.CaptureFixture[str]):
    key = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    (routes.parent / "key").write_text(key)
    settings = "encryption: {use: one, keys: {one: 'file:key'}}"
    secured = ROUTES.replace("keep_days: 1000", settings).replace("record, ", "sealed, ")
    open_again = ROUTES.replace("record, ", "sealed, ")
    given = ["--exchange", "b", "--kind", "comment", "--value", "x"]

    routes.write_text(secured)
    assert run(routes, "feedback", *given) == 0
    assert run(routes, "tail") == 0
    routes.write_text(open_again)
    assert run(routes, "tail") == 1

    assert "encrypted" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["pyarrow", "duckdb", "obstore"])
def test_missing_extra_is_told_with_the_command(routes: Path, tmp_path: Path, module: str):
    # A module that fails to import as an absent one does, found before the real one.
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")

    stopped = subprocess.run(
        [sys.executable, "-m", "proxy", "record", "stats", "--config", routes],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )

    assert stopped.returncode == 2
    assert re.fullmatch(
        rb"headrace: .* package '%b', .* pip install 'headrace\[record\]'\n" % module.encode(),
        stopped.stderr,
    )
