"""headrace record …: every command on a record of both forms."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from proxy.__main__ import main
from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import read_segment, segments
from tests.record.examples import exchange, write

ROOT = Path(__file__).parent.parent
ROUTES = """
version: 1
models: [m]
backends: {cloud: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}
domains: {all: {plan: [cloud]}}
defaults: {tools: all, chat: all}
record: {directory: record, keep_days: 1000}
"""


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    """Settings whose record has `a` in the archive and `b` in a segment."""
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    write(tmp_path / "record", exchange("a"))
    assert main(["record", "compact", "--config", str(path)]) == 0
    write(tmp_path / "record", exchange("b", caller="other", domain="chat"))
    return path


def run(routes: Path, *arguments: str) -> int:
    return main(["record", *arguments, "--config", str(routes)])


def test_ls_and_show_find_both_forms(routes: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert run(routes, "ls") == 0
    listed = capsys.readouterr().out.splitlines()
    assert run(routes, "show", "req-a") == 0
    shown = msgspec.json.decode(capsys.readouterr().out, type=Exchange)

    assert [re.split(" +", line)[2] for line in listed] == ["a", "b"]
    assert shown.id == "a"


@pytest.mark.parametrize("command", ["ls", "tail"])
def test_lists_as_json_tell_nothing_that_was_said(
    routes: Path, capsys: pytest.CaptureFixture[str], command: str
):
    capsys.readouterr()

    assert run(routes, command, "--json") == 0

    *_, last = map(msgspec.json.decode, capsys.readouterr().out.splitlines())
    assert (last["id"], last["domain"], last["caller"]) == ("b", "chat", "other")
    assert last["backends"] == ["local"]
    assert not {"request", "attempts"} & set(last)


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

    assert "1 records of 1 segments → 1 files; 0 too old" in capsys.readouterr().out
    assert segments(routes.parent / "record") == []


def test_query_prints_a_table_or_objects(routes: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    sql = "SELECT domain, count(*) AS n, max(started_at) AS at FROM exchanges GROUP BY 1 ORDER BY 1"

    assert run(routes, "query", sql) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run(routes, "query", sql, "--json") == 0
    (first, _) = map(msgspec.json.decode, capsys.readouterr().out.splitlines())

    assert lines[1].startswith("api     1  2026-02-01 12:00:00")
    assert (first["domain"], first["n"]) == ("api", 1)


def test_query_that_is_none_is_told_on_one_line(routes: Path, capsys: pytest.CaptureFixture[str]):
    assert run(routes, "query", "DROP VIEW exchanges") == 1

    assert capsys.readouterr().err == (
        "headrace: one SELECT, please: the record is only read here\n"
    )


def test_stats_has_a_line_a_domain(routes: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()

    assert run(routes, "stats") == 0

    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["domain", "exchanges", "completed_pct"]
    assert sorted(line.split()[0] for line in lines) == ["api", "chat"]


def test_export_writes_lines_or_a_file(routes: Path, tmp_path: Path):
    lines, parquet = tmp_path / "out.jsonl", tmp_path / "out.parquet"

    assert run(routes, "export", "--format", "openai-jsonl", "--out", str(lines)) == 0
    assert run(routes, "export", "--format", "parquet", "--out", str(parquet)) == 0

    assert len(lines.read_bytes().splitlines()) == 2
    assert parquet.stat().st_size > 0
    assert run(routes, "export", "--format", "parquet") == 2


def test_erase_takes_what_it_is_told(routes: Path, capsys: pytest.CaptureFixture[str]):
    assert run(routes, "erase", "--caller", "app") == 0
    assert "1 exchanges, 0 statements and 0 shadows erased" in capsys.readouterr().out
    assert run(routes, "ls") == 0

    assert re.split(" +", capsys.readouterr().out)[2] == "b"
    assert run(routes, "erase") == 2


def test_feedback_is_appended_and_found(routes: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--exchange", "b", "--kind", "comment", "--value", "mail me@example.com"]
    capsys.readouterr()

    assert run(routes, "feedback", *given) == 0
    id = capsys.readouterr().out.strip()
    sql = "SELECT feedback.id FROM feedback JOIN exchanges ON exchange_id = exchanges.id"
    assert run(routes, "query", sql) == 0

    assert id in capsys.readouterr().out
    newest = segments(routes.parent / "record")[-1]
    assert "<email:" in next(iter(read_segment(newest))).value


@pytest.mark.parametrize(
    "given",
    [
        ["--kind", "boolean", "--value", "yes", "--exchange", "b"],
        ["--kind", "float", "--value", "much", "--exchange", "b"],
        ["--kind", "comment", "--value", "x"],
    ],
)
def test_feedback_that_makes_no_sense_is_refused(routes: Path, given: list[str]):
    assert run(routes, "feedback", *given) == 2


def test_tail_shows_the_last_lines(routes: Path, capsys: pytest.CaptureFixture[str]):
    write(routes.parent / "record", exchange("c"))
    capsys.readouterr()

    assert run(routes, "tail", "-n", "1") == 0

    assert re.split(" +", capsys.readouterr().out)[2] == "c"


def test_bucket_that_is_away_is_told_on_one_line(routes: Path, capsys: pytest.CaptureFixture[str]):
    away = "{url: 's3://x/y', options: {endpoint: 'http://127.0.0.1:1', region: r, " + (
        "access_key_id: a, secret_access_key: b}}"
    )
    routes.write_text(ROUTES.replace("keep_days: 1000", f"archive: {away}"))

    assert run(routes, "compact") == 1

    assert len(capsys.readouterr().err.splitlines()) == 1
    assert len(segments(routes.parent / "record")) == 1


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
