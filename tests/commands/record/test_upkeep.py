"""headrace record compact, erase."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pytest

from proxy.protocol.segments import segments
from tests.commands.record.recorded import ROUTES, run
from tests.record.examples import exchange, write


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["compact"], {"segments": 1, "records": 1, "files": 1, "expired": 0, "waiting": 0}),
        (["erase", "--caller", "other"], {"exchanges": 1, "feedback": 0, "shadows": 0}),
        (["stats"], {"domain": "api", "exchanges": 1}),
    ],
)
def test_figures_as_json(
    routes: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: dict[str, object]
):
    capsys.readouterr()

    assert run(routes, *arguments, "--json") == 0

    first = msgspec.json.decode(capsys.readouterr().out.splitlines()[0])
    assert first.items() >= told.items()


def test_compact_says_what_it_did(routes: Path, capsys: pytest.CaptureFixture[str]):
    assert run(routes, "compact") == 0

    told = "1 records of 1 segments → 1 files; 0 too old; 0 segments still being written; joined 0"
    assert told in capsys.readouterr().out
    assert segments(routes.parent / "record") == []


def test_compact_says_what_it_joined(routes: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(8):
        write(routes.parent / "record", exchange(f"same-day-{number}", started_at=time.time()))
        assert run(routes, "compact") == 0

    assert capsys.readouterr().out.endswith("joined 8 files into 1\n")


def test_erase_takes_what_it_is_told(routes: Path, capsys: pytest.CaptureFixture[str]):
    assert run(routes, "erase", "--caller", "app") == 0
    assert "1 exchanges, 0 statements and 0 shadows erased" in capsys.readouterr().out
    assert run(routes, "ls") == 0

    assert re.split(" +", capsys.readouterr().out)[2] == "b"
    assert run(routes, "erase") == 2


def test_bucket_that_is_away_is_told_on_one_line(routes: Path, capsys: pytest.CaptureFixture[str]):
    away = "{url: 's3://x/y', options: {endpoint: 'http://127.0.0.1:1', region: r, " + (
        "access_key_id: a, secret_access_key: b}}"
    )
    routes.write_text(ROUTES.replace("keep_days: 1000", f"archive: {away}"))

    assert run(routes, "compact") == 1

    assert len(capsys.readouterr().err.splitlines()) == 1
    assert len(segments(routes.parent / "record")) == 1
