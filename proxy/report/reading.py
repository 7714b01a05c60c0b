"""What a report needs of the record, read with SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.hardware import CostSettings
from proxy.protocol.parquet import Rows
from proxy.protocol.prices import PriceTable
from proxy.protocol.shadowed import Shadowed
from proxy.record import query
from proxy.report.ab import Scope
from proxy.report.costs import Answered, Bill, Paid, Twice, bill
from proxy.report.pairs import Contest, Paired
from proxy.report.trials import Assigned

_Kind = TypeVar("_Kind")

_CHOSEN = """
    e.started_at >= to_timestamp($since) AND e.started_at < to_timestamp($until)
    AND ($domain IS NULL OR e.domain = $domain) AND ($tenant IS NULL OR e.tenant = $tenant)
"""

_SHADOWED = """
    s.started_at >= to_timestamp($since)
    AND ($domain IS NULL OR s.domain = $domain) AND ($tenant IS NULL OR s.tenant = $tenant)
"""
"""What follows for an exchange's shadows, which begin after it: what they are joined with says it
too late to leave files unread."""

# Exchanges come first in each join: DuckDB, which does not know how many rows there are, keeps what
# comes second in memory.

_TWO_NAMES = """
LEFT JOIN {said} a ON a.tenant = e.tenant AND a.exchange_id = e.id
LEFT JOIN {said} b ON b.tenant = e.tenant AND b.exchange_id = e.request_id
"""
"""What is said of an exchange by its id, or by its request's: joined one after the other, as DuckDB
compares all with all where either may hold."""
_LATER = "CASE WHEN a.at IS NULL OR b.at > a.at THEN b.last ELSE a.last END"

_PAIRED = f"""
WITH shown AS (
    SELECT tenant, exchange_id, max(given_at) AS at,
        arg_max({{feedback: feedback, sealed: sealed}}, given_at) AS last
    FROM feedback WHERE kind = 'demonstration' AND exchange_id IS NOT NULL GROUP BY ALL),
found AS (
    SELECT e.started_at, e.id, s.id AS shadow_id, e.exchange, e.sealed AS exchange_sealed,
        s.shadow, s.sealed AS shadow_sealed, {_LATER} AS last
    FROM exchanges e
    JOIN shadows s ON e.id = s.exchange_id AND e.tenant = s.tenant
    {_TWO_NAMES.format(said="shown")}
    WHERE {_CHOSEN} AND {_SHADOWED})
SELECT exchange, exchange_sealed, shadow, shadow_sealed,
    last.feedback AS feedback, last.sealed AS feedback_sealed
FROM found ORDER BY started_at, id, shadow_id
"""  # noqa: S608  # constants only

_BACKENDS = f"""
WITH sides AS (
    SELECT DISTINCT s.id, s.backend AS shadow, unnest(e.attempts).backend AS answered
    FROM exchanges e JOIN shadows s ON e.id = s.exchange_id AND e.tenant = s.tenant
    WHERE {_CHOSEN} AND {_SHADOWED})
SELECT answered, shadow FROM sides WHERE answered <> shadow
GROUP BY ALL ORDER BY count(*) DESC, answered, shadow LIMIT 1
"""  # noqa: S608  # constants only

_ASSIGNED = f"""
WITH liked AS (
    SELECT tenant, exchange_id, max(given_at) AS at, arg_max(number, given_at) AS last
    FROM feedback WHERE kind = 'boolean' AND exchange_id IS NOT NULL GROUP BY ALL),
told AS (
    SELECT exchange_id, max((outcome = 'error')::DOUBLE) AS tools_failed FROM calls
    WHERE outcome IS NOT NULL GROUP BY ALL)
SELECT e.assigned AS side, coalesce(nullif(e.conversation, ''), e.id) AS conversation,
    e.outcome = 'completed' AS completed,
    len(e.attempts) > 1 AND e.attempts[1].backend <> e.attempts[-1].backend AS rescued,
    e.total_s, e.cost_usd, {_LATER} AS liked, told.tools_failed
FROM exchanges e
{_TWO_NAMES.format(said="liked")}
LEFT JOIN told ON told.exchange_id = e.id
WHERE e.assigned IS NOT NULL AND e.outcome NOT IN ('client_aborted') AND {_CHOSEN}
ORDER BY e.started_at, e.id
"""  # noqa: S608  # constants only

_HOME = "(SELECT unnest($local))"
_FIRST = f"""
SELECT epoch(min(started_at)) FROM exchanges e
WHERE outcome = 'completed' AND backend IN {_HOME} AND {_CHOSEN}
"""  # noqa: S608  # constants only

_ANSWERED = f"""
SELECT epoch(min(e.started_at)) AS at, e.model, count(*) AS requests,
    coalesce(sum(e.prompt_tokens), 0)::BIGINT AS prompt_tokens,
    coalesce(sum(e.completion_tokens), 0)::BIGINT AS completion_tokens
FROM exchanges e WHERE e.outcome = 'completed' AND e.backend IN {_HOME} AND {_CHOSEN}
GROUP BY e.date, e.model ORDER BY e.date, e.model
"""  # noqa: S608  # constants only

_TWICE = f"""
WITH sides AS (
    SELECT e.started_at, e.tenant, e.domain,
        coalesce(nullif(e.conversation, ''), e.id) AS conversation,
        unnest([e.attempts[-1].backend, s.backend]) AS backend,
        unnest([s.backend, e.attempts[-1].backend]) AS other,
        unnest([e.attempts[-1].prompt_tokens, s.prompt_tokens]) AS prompt_tokens,
        unnest([e.attempts[-1].completion_tokens, s.completion_tokens]) AS completion_tokens,
        unnest([s.model, e.attempts[-1].model]) AS model,
        unnest([s.cost_usd, e.attempts[-1].cost_usd]) AS cost_usd
    FROM exchanges e JOIN shadows s ON e.id = s.exchange_id AND e.tenant = s.tenant
    WHERE e.outcome = 'completed' AND s.outcome = 'completed')
SELECT epoch(e.started_at) AS at, conversation, prompt_tokens, completion_tokens, model, cost_usd
FROM sides e
WHERE e.backend IN {_HOME} AND e.other NOT IN {_HOME} AND {_CHOSEN}
    AND e.prompt_tokens IS NOT NULL AND e.model IS NOT NULL AND e.cost_usd IS NOT NULL
ORDER BY 1, 2
"""  # noqa: S608  # constants only

_PAID = f"""
SELECT
    (SELECT count(*) FROM exchanges e WHERE e.cost_usd > 0 AND {_CHOSEN}) AS requests,
    (SELECT coalesce(sum(e.cost_usd), 0.0) FROM exchanges e WHERE {_CHOSEN}) AS answers_usd,
    (SELECT coalesce(sum(e.cost_usd), 0.0) FROM shadows e WHERE {_CHOSEN}) AS shadows_usd
"""  # noqa: S608  # constants only

_PART = f"""
SELECT CASE count(*) WHEN 0 THEN 1.0 ELSE count(*) FILTER (WHERE {_CHOSEN}) / count(*) END
FROM exchanges e
WHERE e.outcome = 'completed' AND e.backend IN {_HOME}
    AND e.started_at >= to_timestamp($since) AND e.started_at < to_timestamp($until)
"""  # noqa: S608  # constants only

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


# ---------------------------------------------------------------- costs


class AtHome:
    """What the record says of the backends that are at home."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, scope: Scope, local: Sequence[str]
    ) -> None:
        self._connection = connection
        self._values = {**_values(scope), "local": list(local)}

    def first(self) -> float | None:
        """When home first answered, in seconds since the epoch; None where it never did."""
        return self._one(_FIRST)

    def answered(self) -> list[Answered]:
        """What home answered, by day and model."""
        return self._rows(_ANSWERED, Answered)

    def twice(self) -> list[Twice]:
        """Requests that the cloud answered, too."""
        return self._rows(_TWICE, Twice)

    def paid(self) -> Paid:
        """What clouds were paid."""
        (found,) = self._rows(_PAID, Paid)
        return found

    def part(self) -> float:
        """Share of home's answers that the scope has, of the same time; 1 where home gave none."""
        return self._one(_PART) or 0.0

    def _one(self, sql: str) -> float | None:
        found = query.run(self._connection, sql, self._used(sql))
        ((value,),) = (row for batch in found.batches() for row in batch)
        return msgspec.convert(value, float | None)

    def _rows(self, sql: str, kind: type[_Kind]) -> list[_Kind]:
        return query.typed(self._connection, sql, self._used(sql), kind)

    def _used(self, sql: str) -> Mapping[str, object]:
        return {name: value for name, value in self._values.items() if f"${name}" in sql}


def billed(
    connection: duckdb.DuckDBPyConnection,
    scope: Scope,
    local: Sequence[str],
    prices: PriceTable,
    settings: CostSettings | None,
) -> Bill | None:
    """The costs since the scope's beginning, or, where that is 0, since home first answered; None
    where it never did."""
    since = scope.since or AtHome(connection, scope, local).first()
    if since is None:
        return None
    home = AtHome(connection, msgspec.structs.replace(scope, since=since), local)
    return bill(
        home.answered(),
        home.twice(),
        home.paid(),
        prices,
        settings,
        since=since,
        until=scope.until,
        part=home.part(),
    )


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
