"""SQL over the record, with DuckDB: reads, and reaches nothing else.

Tables: `exchanges`, `feedback` and `shadows` (columns: protocol.parquet), `attempts` (one row an
attempt) and `calls` (one row a tool call of an answer, with the outcome that a later request told).
The database is in memory, and has no way to files, network or extensions; what it reads is handed
to it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset

from proxy.errors import CannotStart
from proxy.protocol.parquet import SCHEMAS, SUFFIX, kind_of
from proxy.record import journal
from proxy.record.partitions import Partitions
from proxy.record.shelf import Shelf

MEMORY = "1GB"
"""Memory of DuckDB, above which it uses the disk. Chosen: fits beside a proxy."""
_BATCH = 1024

_Kind = TypeVar("_Kind")

_VIEWS = """
CREATE VIEW exchanges AS SELECT * FROM all_exchanges WHERE id NOT IN (SELECT id FROM erased);
CREATE VIEW feedback AS SELECT * FROM all_feedback
    WHERE exchange_id IS NULL OR exchange_id NOT IN (SELECT id FROM erased);
CREATE VIEW shadows AS SELECT * FROM all_shadows
    WHERE exchange_id NOT IN (SELECT id FROM erased);
CREATE VIEW attempts AS
    SELECT id AS exchange_id, started_at, date, tenant, domain, unnest(attempts, recursive := true)
    FROM exchanges;
CREATE VIEW calls AS
    WITH made AS (
        SELECT id AS exchange_id, started_at, date, tenant, conversation, domain, backend, adapter,
            unnest(calls) AS call FROM exchanges),
    told AS (
        SELECT tenant, conversation, unnest(tool_results) AS result FROM exchanges)
    SELECT made.* EXCLUDE (call), call.id AS id, call.name AS name,
        any_value(result.outcome) AS outcome
    FROM made LEFT JOIN told ON told.tenant = made.tenant
        AND told.conversation = made.conversation AND told.result.tool_call_id = made.call.id
    GROUP BY ALL;
"""


class BadQuery(CannotStart):
    """The SQL cannot be run; the message is DuckDB's."""


class Result:
    """What a query found: names of its columns, and its rows a batch at a time."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self.columns: list[str] = list(reader.schema.names)
        self._reader = reader

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """Rows; raises BadQuery when they cannot be computed."""
        with _translated():
            yield from self._reader

    def batches(self) -> Iterator[list[tuple[object, ...]]]:
        """The same as plain values."""
        for batch in self.record_batches():
            yield list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


@contextmanager
def opened(shelf: Shelf, since: float = 0.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees the record's tables; segments are read when it is opened.

    `since` (seconds since the epoch): what is older may be missing, and costs little.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
        fresh = _from_segments(shelf, Path(scratch), since)
        connection = duckdb.connect(":memory:", config=_CONFIG)
        try:
            connection.execute(f"SET temp_directory = '{scratch}/spill'")
            for kind in SCHEMAS:
                connection.register(f"all_{kind}", _both(shelf, kind, fresh, since))
            connection.register("erased", pa.table({"id": pa.array(shelf.erased, pa.string())}))
            connection.execute(_VIEWS)
            connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            yield connection
        finally:
            connection.close()


_CONFIG = {
    "memory_limit": MEMORY,
    "threads": 2,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
}


def run(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object] | None = None
) -> Result:
    """What one SELECT finds, with these values for its `$names`; raises BadQuery for all else."""
    with _translated():
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise BadQuery("one SELECT, please: the record is only read here")
        return Result(connection.sql(sql, params=values).to_arrow_reader(_BATCH))


def typed(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object], kind: type[_Kind]
) -> list[_Kind]:
    """What one SELECT finds, as structs whose fields are its columns; raises BadQuery."""
    found = run(connection, sql, values)
    rows = (row for batch in found.batches() for row in batch)
    return [msgspec.convert(dict(zip(found.columns, row, strict=True)), kind) for row in rows]


def _from_segments(shelf: Shelf, scratch: Path, since: float) -> list[str]:
    """Parquet files of what the segments hold, for as long as the connection lasts.

    A segment that was last written to before `since` holds nothing that began after it.
    """
    parts = Partitions(scratch, "segments", shelf.rows, kind_of)
    with parts:
        for path in journal.counting(shelf.directory):
            if path.stat().st_mtime >= since:
                parts.add(shelf.records(path))
    return [str(scratch / file) for file in parts.files]


def _both(shelf: Shelf, kind: str, fresh: list[str], since: float) -> pa.dataset.Dataset:
    here = [path for path in fresh if f"/{kind}/" in path and path.endswith(SUFFIX)]
    local = pyarrow.dataset.dataset(here, schema=SCHEMAS[kind], format="parquet")
    return pyarrow.dataset.dataset([shelf.dataset(kind, since), local])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise BadQuery(str(error).splitlines()[0]) from error


STATS = """
SELECT domain, count(*) AS exchanges,
    round(100 * avg((outcome = 'completed')::INT), 1) AS completed_pct,
    round(100 * avg((len(attempts) > 1)::INT), 1) AS fallback_pct,
    round(quantile_cont(first_byte_s, 0.5), 3) AS first_byte_p50_s,
    round(quantile_cont(total_s, 0.5), 3) AS total_p50_s,
    round(quantile_cont(total_s, 0.95), 3) AS total_p95_s,
    sum(prompt_tokens)::BIGINT AS prompt_tokens,
    sum(completion_tokens)::BIGINT AS completion_tokens,
    round(sum(cost_usd), 4) AS cost_usd,
    min(date) AS first_day, max(date) AS last_day
FROM exchanges GROUP BY domain ORDER BY exchanges DESC, domain
"""
"""What the record holds, by domain. Times in seconds; cost where a price is known."""
