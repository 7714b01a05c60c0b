"""What the record says of traffic and times; runs in the reader's process."""

from __future__ import annotations

from collections import Counter, defaultdict

import duckdb
import msgspec

from proxy.dashboard.questions import (
    SLOTS,
    Chart,
    Course,
    Fallback,
    Share,
    Span,
    TrafficFound,
)
from proxy.record import query

_LINES = 8
"""Backends that have a line of their own in the chart of traffic."""
_ROWS = 200
"""Rows of a table, at most."""

_CHOSEN = "started_at >= to_timestamp($since) AND started_at < to_timestamp($until)"

_BY_SLOT = f"""
SELECT coalesce(backend, '') AS backend,
    floor((epoch(started_at) - $since) / $width)::INT AS slot, count(*) AS requests
FROM exchanges WHERE {_CHOSEN} GROUP BY ALL
"""  # noqa: S608  # constants only

_SHARES = f"""
SELECT domain, coalesce(backend, '') AS backend, count(*) AS requests,
    avg((outcome = 'completed')::INT) AS completed,
    quantile_cont(first_byte_s, 0.5) AS first_byte_p50_s,
    quantile_cont(total_s, 0.5) AS total_p50_s, quantile_cont(total_s, 0.95) AS total_p95_s,
    sum(cost_usd) AS cost_usd
FROM exchanges WHERE {_CHOSEN} GROUP BY ALL ORDER BY requests DESC, 1, 2 LIMIT {_ROWS}
"""  # noqa: S608  # constants only

_FALLBACKS = f"""
SELECT domain, attempts[1].backend AS backend,
    coalesce(attempts[1].reason, attempts[1].outcome) AS reason, count(*) AS requests
FROM exchanges WHERE {_CHOSEN} AND len(attempts) > 1
    AND attempts[1].backend <> attempts[-1].backend AND attempts[1].kind <> 'hedge'
GROUP BY ALL ORDER BY requests DESC, 1, 2, 3 LIMIT {_ROWS}
"""  # noqa: S608  # constants only


# ---------------------------------------------------------------- traffic


def traffic(connection: duckdb.DuckDBPyConnection, span: Span) -> TrafficFound:
    """Who answered what, how fast, and why the first backend did not."""
    values = {"since": span.since, "until": span.until}
    return TrafficFound(
        chart=_by_backend(connection, span),
        shares=query.typed(connection, _SHARES, values, Share),
        fallbacks=query.typed(connection, _FALLBACKS, values, Fallback),
    )


class _Slot(msgspec.Struct):
    backend: str
    slot: int
    requests: int


def _by_backend(connection: duckdb.DuckDBPyConnection, span: Span) -> Chart:
    width = (span.until - span.since) / SLOTS
    values = {"since": span.since, "until": span.until, "width": width}
    slots = query.typed(connection, _BY_SLOT, values, _Slot)
    totals: Counter[str] = Counter()
    lines: defaultdict[str, list[float | None]] = defaultdict(lambda: [0.0] * SLOTS)
    for one in slots:
        totals[one.backend] += one.requests
        lines[one.backend][min(one.slot, SLOTS - 1)] = one.requests
    known = [name for name, _ in totals.most_common(_LINES)]
    return Chart(
        at=[span.since + width * slot for slot in range(SLOTS)],
        lines=[Course(name=name or "nobody", values=lines[name]) for name in known],
    )
