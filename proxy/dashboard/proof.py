"""What home is worth, by the record: agreement with the cloud, and money; in the reader's process.

Slower to start than the rest: it takes SciPy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

import duckdb
import msgspec

from proxy.dashboard.questions import (
    DOMAINS,
    PAIRS,
    Agreed,
    AgreementsFound,
    Chart,
    Course,
    Money,
    Order,
    SavingsFound,
    Span,
)
from proxy.protocol.evidence.clusters import effective
from proxy.protocol.evidence.intervals import Interval, wilson
from proxy.protocol.parquet import Rows
from proxy.protocol.prices import PRICES
from proxy.record import query
from proxy.report import figures, reading
from proxy.report.ab import Scope
from proxy.report.pairs import Contest, LeftOut, Pair, pairs

_POINTS = 16
"""Points of the course of agreement: fewer than of traffic, so that each rests on more pairs."""

_PAIRED_DOMAINS = f"""
SELECT domain FROM shadows
WHERE started_at >= to_timestamp($since) AND started_at < to_timestamp($until)
GROUP BY domain ORDER BY count(*) DESC, domain LIMIT {DOMAINS}
"""  # noqa: S608  # constants only


# ---------------------------------------------------------------- money


def savings(connection: duckdb.DuckDBPyConnection, span: Span, order: Order) -> SavingsFound:
    """What was saved in a time."""
    scope = Scope(since=span.since, until=span.until)
    prices = {**PRICES, **order.record.prices}
    found = reading.billed(connection, scope, order.local, prices, order.costs)
    if found is None or not found.at_home:
        return SavingsFound(money=None)
    money = Money(
        sentence=found.sentence,
        saved=found.saved,
        low=found.saved_interval.low,
        high=found.saved_interval.high,
        is_known=found.own is not None,
    )
    return SavingsFound(money=money)


# ---------------------------------------------------------------- agreement


def agreements(
    connection: duckdb.DuckDBPyConnection, rows: Rows, span: Span, local: Sequence[str]
) -> AgreementsFound:
    """The agreement of each domain's two busiest backends, slot by slot."""
    values = {"since": span.since, "until": span.until}
    found: list[Agreed] = []
    left = PAIRS
    for one in query.typed(connection, _PAIRED_DOMAINS, values, _Domain):
        scope = Scope(since=span.since, until=span.until, domain=one.domain)
        contest = reading.busiest(connection, scope, local)
        if contest is None:
            continue
        records, left_out = reading.paired(connection, rows, scope), Counter[LeftOut]()
        compared = list(islice(pairs(records, contest, PRICES, left_out), left))
        left -= len(compared)
        if compared:
            found.append(_agreed(compared, contest, span))
    return AgreementsFound(domains=found, is_cut=left == 0)


class _Domain(msgspec.Struct):
    domain: str


def _agreed(found: Sequence[Pair], contest: Contest, span: Span) -> Agreed:
    value, interval, _ = _share(found)
    return Agreed(
        domain=found[0].domain,
        candidate=contest.candidate,
        baseline=contest.baseline,
        pairs=len(found),
        conversations=len({pair.conversation for pair in found}),
        value=value,
        low=interval.low,
        high=interval.high,
        kinds=dict(Counter(map(figures.kind, found)).most_common()),
        chart=_course(found, span),
    )


def _course(found: Sequence[Pair], span: Span) -> Chart:
    width = (span.until - span.since) / _POINTS
    slots: list[list[Pair]] = [[] for _ in range(_POINTS)]
    for pair in found:
        slots[min(int((pair.started_at - span.since) / width), _POINTS - 1)].append(pair)
    shares = [_share(slot) for slot in slots]
    line = Course(
        name="agreement",
        values=[value for value, _, _ in shares],
        lows=[interval.low if value is not None else None for value, interval, _ in shares],
        highs=[interval.high if value is not None else None for value, interval, _ in shares],
        counts=[n for _, _, n in shares],
    )
    return Chart(at=[span.since + width * (slot + 0.5) for slot in range(_POINTS)], lines=[line])


def _share(found: Sequence[Pair]) -> tuple[float | None, Interval, int]:
    """The share that agrees, its interval, and how many pairs could be compared."""
    seen = figures.agreeing(found)
    if not seen.values:
        return None, Interval(0.0, 1.0), 0
    clusters = seen.clusters
    worth = effective(clusters)
    return clusters.mean, wilson(clusters.mean * worth, worth), clusters.n
