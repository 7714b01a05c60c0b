"""SQL reads both forms of the record, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.record import query
from proxy.record.compact import Retention, compact
from proxy.record.erase import Choice, erase
from proxy.record.query import BadQuery
from proxy.record.shelf import Shelf
from tests.record.buckets import Bucket
from tests.record.examples import DAY, NOW, exchange, feedback, result, shadowed, shelf, write


@pytest.fixture
def filled(tmp_path: Path) -> Shelf:
    """`a` and `b` in the archive, `c`, which brings the result of a's call, in a segment."""
    write(tmp_path, exchange("a"), exchange("b", domain="chat", conversation="conv-2"))
    compact(shelf(tmp_path), Retention())
    write(
        tmp_path,
        exchange("c", tool_results=[result("call-a", "error")]),
        feedback("f", "a", kind="float", value=0.5),
    )
    return shelf(tmp_path)


def rows(shelf: Shelf, sql: str) -> list[tuple[object, ...]]:
    with query.opened(shelf) as connection:
        return [row for batch in query.run(connection, sql).batches() for row in batch]


def test_both_forms_are_one_table(filled: Shelf):
    sql = "SELECT domain, count(*), sum(prompt_tokens) FROM exchanges GROUP BY 1 ORDER BY 1"

    assert rows(filled, sql) == [("api", 2, 60), ("chat", 1, 30)]


def test_bucket_is_read_too(tmp_path: Path, s3: Bucket):
    write(tmp_path, exchange("a"))
    compact(shelf(tmp_path, s3.archive), Retention())

    assert rows(shelf(tmp_path / "elsewhere", s3.archive), "SELECT id FROM exchanges") == [("a",)]


def test_record_is_json_to_look_into(filled: Shelf):
    sql = "SELECT exchange->>'$.request.messages[0].content' FROM exchanges WHERE id = 'a'"

    assert rows(filled, sql) == [("Ping a.",)]


def test_call_has_the_outcome_that_a_later_request_told(filled: Shelf):
    sql = "SELECT exchange_id, name, outcome FROM calls ORDER BY 1"

    assert rows(filled, sql) == [("a", "ping", "error"), ("b", "ping", None), ("c", "ping", None)]


def test_attempts_and_feedback_are_tables(filled: Shelf):
    joined = "SELECT number FROM feedback JOIN exchanges ON exchange_id = exchanges.id"

    assert rows(filled, "SELECT DISTINCT backend, outcome FROM attempts") == [
        ("local", "completed")
    ]
    assert rows(filled, joined) == [(0.5,)]


def test_what_was_erased_is_not_there(filled: Shelf, tmp_path: Path):
    erase(filled, Choice(matching="Ping a"))

    assert rows(shelf(tmp_path), "SELECT id FROM exchanges ORDER BY 1") == [("b",), ("c",)]
    assert rows(shelf(tmp_path), "SELECT count(*) FROM feedback") == [(0,)]


def test_empty_record_has_its_tables(tmp_path: Path):
    assert rows(shelf(tmp_path), "SELECT count(*) FROM exchanges, feedback, calls") == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT getenv('HOME')",
        "SELECT * FROM filled",
        "COPY (SELECT 1) TO '{file}.csv'",
        "ATTACH '{file}.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "CREATE TABLE x AS SELECT 1",
        "DELETE FROM exchanges",
        "SELECT 1; SELECT 2",
        "EXPORT DATABASE '{file}'",
        "SELEKT",
        "",
    ],
)
def test_nothing_else_can_be_reached(filled: Shelf, tmp_path: Path, sql: str):
    (file,) = (tmp_path / "archive").rglob("exchanges/*/domain=api/*.parquet")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(BadQuery):
        rows(filled, sql.format(file=file))

    assert sorted(tmp_path.rglob("*")) == before


def test_pairs_are_a_join_over_both_forms(tmp_path: Path):
    write(tmp_path, exchange("a"), exchange("b"), shadowed("s-b", "b"))
    compact(shelf(tmp_path), Retention())
    write(tmp_path, shadowed("s-a", "a"), shadowed("s-x", "of an exchange that was not kept"))

    sql = """SELECT e.id, e.backend, s.backend, len(e.calls), len(s.calls), s.cost_usd,
            s.shadow->>'$.attempt.answer.text'
        FROM exchanges e JOIN shadows s ON s.exchange_id = e.id AND s.tenant = e.tenant
        ORDER BY 1"""

    assert rows(shelf(tmp_path), sql) == [
        ("a", "local", "azure", 1, 0, 0.25, "No need."),
        ("b", "local", "azure", 1, 0, 0.25, "No need."),
    ]


def test_shadows_of_erased_exchanges_are_not_found(filled: Shelf):
    write(filled.directory, shadowed("s-a", "a"), shadowed("s-c", "c"))
    compact(shelf(filled.directory), Retention())

    erase(shelf(filled.directory), Choice(matching="Ping a"))

    assert rows(shelf(filled.directory), "SELECT exchange_id FROM shadows") == [("c",)]


def test_assignment_is_a_column(tmp_path: Path):
    write(tmp_path, exchange("a", assigned="split:azure"), exchange("b"))

    sql = "SELECT id, assigned FROM exchanges ORDER BY 1"

    assert rows(shelf(tmp_path), sql) == [("a", "split:azure"), ("b", None)]


def test_old_segments_and_days_are_left_out(tmp_path: Path):
    write(tmp_path, exchange("archived"), exchange("later", started_at=NOW + 5 * DAY))
    compact(shelf(tmp_path), Retention())
    old = write(tmp_path, exchange("old"))
    os.utime(old, (NOW, NOW))
    write(tmp_path, exchange("fresh", started_at=NOW + 5 * DAY))

    with query.opened(shelf(tmp_path), NOW + 2 * DAY) as connection:
        found = query.run(connection, "SELECT id FROM exchanges ORDER BY id")
        ids = [row for batch in found.batches() for row in batch]

    assert ids == [("fresh",), ("later",)]
    assert len(rows(shelf(tmp_path), "SELECT id FROM exchanges")) == 4
