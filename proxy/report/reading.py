"""What a report needs of the record, read with SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.parquet import Rows
from proxy.protocol.shadowed import Shadowed
from proxy.record import query
from proxy.report.ab import Scope
from proxy.report.pairs import Contest, Paired
from proxy.report.trials import Assigned

_CHOSEN = """
    e.started_at >= to_timestamp($since) AND e.started_at < to_timestamp($until)
    AND ($domain IS NULL OR e.domain = $domain) AND ($tenant IS NULL OR e.tenant = $tenant)
"""

_PAIRED = f"""
SELECT e.exchange, e.sealed AS exchange_sealed, s.shadow, s.sealed AS shadow_sealed,
    f.feedback, f.sealed AS feedback_sealed
FROM shadows s
JOIN exchanges e ON e.id = s.exchange_id AND e.tenant = s.tenant
LEFT JOIN feedback f ON f.tenant = e.tenant AND f.kind = 'demonstration'
    AND f.exchange_id IN (e.id, e.request_id)
WHERE {_CHOSEN}
QUALIFY row_number() OVER (PARTITION BY s.id ORDER BY f.given_at DESC NULLS LAST) = 1
ORDER BY e.started_at, e.id, s.id
"""  # noqa: S608  # constants only

_BACKENDS = f"""
WITH sides AS (
    SELECT DISTINCT s.id, s.backend AS shadow, unnest(e.attempts).backend AS answered
    FROM shadows s JOIN exchanges e ON e.id = s.exchange_id AND e.tenant = s.tenant
    WHERE {_CHOSEN})
SELECT answered, shadow FROM sides WHERE answered <> shadow
GROUP BY ALL ORDER BY count(*) DESC, answered, shadow LIMIT 1
"""  # noqa: S608

_ASSIGNED = f"""
WITH liked AS (
    SELECT tenant, exchange_id, arg_max(number, given_at) AS liked FROM feedback
    WHERE kind = 'boolean' AND exchange_id IS NOT NULL GROUP BY ALL),
told AS (
    SELECT exchange_id, max((outcome = 'error')::DOUBLE) AS tools_failed FROM calls
    WHERE outcome IS NOT NULL GROUP BY ALL)
SELECT e.assigned AS side, coalesce(nullif(e.conversation, ''), e.id) AS conversation,
    e.outcome = 'completed' AS completed,
    len(e.attempts) > 1 AND e.attempts[1].backend <> e.attempts[-1].backend AS rescued,
    e.total_s, e.cost_usd, liked.liked, told.tools_failed
FROM exchanges e
LEFT JOIN liked ON liked.tenant = e.tenant AND liked.exchange_id IN (e.id, e.request_id)
LEFT JOIN told ON told.exchange_id = e.id
WHERE e.assigned IS NOT NULL AND e.outcome NOT IN ('client_aborted') AND {_CHOSEN}
ORDER BY e.started_at, e.id
"""  # noqa: S608

_exchange = msgspec.json.Decoder(Exchange)
_shadowed = msgspec.json.Decoder(Shadowed)
_feedback = msgspec.json.Decoder(Feedback)


def paired(connection: duckdb.DuckDBPyConnection, rows: Rows, scope: Scope) -> Iterator[Paired]:
    """Exchanges with their shadows and the last demonstration, in the order of the exchanges."""
    for batch in query.run(connection, _PAIRED, _values(scope)).record_batches():
        exchanges = map(_exchange.decode, _contents(rows, batch, "exchange"))
        shadows = map(_shadowed.decode, _contents(rows, batch, "shadow"))
        shown = _demonstrations(rows, batch)
        for number, (exchange, shadow) in enumerate(zip(exchanges, shadows, strict=True)):
            yield Paired(exchange, shadow, shown.get(number))


def busiest(
    connection: duckdb.DuckDBPyConnection, scope: Scope, local: Sequence[str]
) -> Contest | None:
    """The two backends with most pairs, a local one as the candidate; None where there are none."""
    for batch in query.run(connection, _BACKENDS, _values(scope)).batches():
        for answered, shadow in batch:
            is_reversed = answered in local and shadow not in local
            candidate, baseline = (answered, shadow) if is_reversed else (shadow, answered)
            return Contest(candidate=str(candidate), baseline=str(baseline))
    return None


def assigned(connection: duckdb.DuckDBPyConnection, scope: Scope) -> Iterator[Assigned]:
    """Requests that were put on a side of a live comparison."""
    found = query.run(connection, _ASSIGNED, _values(scope))
    for batch in found.batches():
        for row in batch:
            yield msgspec.convert(dict(zip(found.columns, row, strict=True)), Assigned)


def _values(scope: Scope) -> Mapping[str, object]:
    chosen = ("since", "until", "domain", "tenant")
    return {name: getattr(scope, name) for name in chosen}


def _contents(rows: Rows, batch: pa.RecordBatch, column: str) -> Iterator[bytes]:
    columns = [batch.column(column), batch.column(f"{column}_sealed")]
    return rows.contents(pa.RecordBatch.from_arrays(columns, [column, "sealed"]), column)


def _demonstrations(rows: Rows, batch: pa.RecordBatch) -> dict[int, Feedback]:
    """Number of the row → its demonstration."""
    plain, sealed = batch.column("feedback"), batch.column("feedback_sealed")
    known = pc.or_(pc.is_valid(plain), pc.is_valid(sealed))
    numbers = [number for number, is_known in enumerate(known.to_pylist()) if is_known]
    contents = _contents(rows, batch.filter(known), "feedback")
    return dict(zip(numbers, map(_feedback.decode, contents), strict=True))
