"""headrace record query, stats, export: both forms of the record."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.commands.record.recorded import run


def test_query_prints_a_table_or_objects(routes: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    sql = "SELECT domain, count(*) AS n, max(started_at) AS at FROM exchanges GROUP BY 1 ORDER BY 1"

    assert run(routes, "query", sql) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run(routes, "query", sql, "--json") == 0
    (first, _) = map(msgspec.json.decode, capsys.readouterr().out.splitlines())

    assert lines[1].startswith("api     1  2026-02-01 12:00:00")
    assert (first["domain"], first["n"]) == ("api", 1)


HOSTILE = "'a' || chr(27) || ']0;b' || chr(7) || chr(155) || chr(10) || 'c'"


def test_what_was_said_steers_no_terminal(routes: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()

    assert run(routes, "query", f"SELECT {HOSTILE} AS said FROM range(300)") == 0
    lines = capsys.readouterr().out.splitlines()
    assert run(routes, "query", f"SELECT {HOSTILE} AS said", "--json") == 0
    object = capsys.readouterr().out

    assert set(lines[1:]) == {"a⟨U+001B⟩]0;b⟨U+0007⟩⟨U+009B⟩⟨U+000A⟩c"}
    assert object == '{"said":"a\\u001b]0;b\\u0007\\u009b\\nc"}\n'


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
