"""What happens now: counters of /metrics, and their rates between two looks.

The same for the dashboard, which looks at the proxy that it is part of, and for `headrace top`,
which looks at one from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import TypeAlias

import msgspec
from prometheus_client import Metric

from proxy.siblings import Unheard

LOOK_S = 5.0
"""Seconds between two looks of the dashboard."""
_LOOKS = 360
"""Looks that are kept: half an hour."""
_LINES = 8
"""Domains and backends that have a line of their own in the chart: the busiest."""
_RECENT = 12
"""Looks that the figures of now are taken over: a minute."""

Collect: TypeAlias = Callable[[], Awaitable[Sequence[Metric]]]
"""All that /metrics tells; raises Unheard where a worker does not answer."""
Who: TypeAlias = tuple[str, str]
"""Domain and backend."""
_ANSWERED = "gen_ai_server_request_duration_seconds"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What /metrics said at one time."""

    at: float
    """Seconds since the epoch."""
    requests: float
    """All that were answered, those without a backend included."""
    failed: float
    """Of these, with a status of 500 or above."""
    answered: dict[Who, float]
    times: dict[Who, dict[float, float]]
    """Upper bound in seconds → answers that took at most so long."""
    fallbacks: dict[str, float]
    """By reason."""
    in_flight: float
    record: dict[str, float]
    """`waiting`, `dropped`, `lost`, `failing`; empty where nothing is recorded."""


def counts(families: Iterable[Metric], at: float) -> Counts:
    """The counters in what a registry, or a page of /metrics, holds."""
    requests = failed = in_flight = 0.0
    answered: defaultdict[Who, float] = defaultdict(float)
    times: defaultdict[Who, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    fallbacks: defaultdict[str, float] = defaultdict(float)
    record: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels, value = sample.labels, sample.value
        match sample.name:
            case "headrace_requests_total":
                requests += value
                failed += value if labels["status"] >= "500" else 0.0
            case "headrace_fallbacks_total":
                fallbacks[labels["reason"]] += value
            case "headrace_in_flight":
                in_flight += value
            case name if name == f"{_ANSWERED}_count":
                answered[labels["domain"], labels["backend"]] += value
            case name if name == f"{_ANSWERED}_bucket":
                times[labels["domain"], labels["backend"]][float(labels["le"])] += value
            case name if name in _RECORD:
                record[_RECORD[name]] = record.get(_RECORD[name], 0.0) + value
    return Counts(
        at=at,
        requests=requests,
        failed=failed,
        answered=dict(answered),
        times={who: dict(bounds) for who, bounds in times.items()},
        fallbacks=dict(fallbacks),
        in_flight=in_flight,
        record=record,
    )


_RECORD = {
    "headrace_record_waiting": "waiting",
    "headrace_record_failing": "failing",
    "headrace_record_dropped_total": "dropped",
    "headrace_record_lost_total": "lost",
}


# ---------------------------------------------------------------- between two looks


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """One domain and backend."""

    domain: str
    backend: str
    per_s: float
    requests: float
    """Since the server started."""
    p50_s: float | None
    p95_s: float | None
    """Over the time between the looks; None where nothing was answered."""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why another backend than the first answered."""

    reason: str
    per_s: float
    requests: float


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between two looks, and what is so now."""

    at: float
    over_s: float
    """Seconds between the looks; 0 at the first one, when all rates are 0."""
    requests_per_s: float
    failed_per_s: float
    p50_s: float | None
    p95_s: float | None
    in_flight: float
    paces: list[Pace]
    """The busiest first."""
    fallbacks: list[Reason]
    record: dict[str, float]


def between(former: Counts, now: Counts) -> Live:
    """The rates from one look to a later one; a server that started anew counts from 0."""
    if now.requests < former.requests:
        former = _nothing(former.at)
    over = now.at - former.at
    paces = [_pace(who, former, now, over) for who in now.answered]
    spent = {who: _less(now.times.get(who, {}), former.times.get(who, {})) for who in now.times}
    together = _summed(spent.values())
    return Live(
        at=now.at,
        over_s=over,
        requests_per_s=_per(now.requests - former.requests, over),
        failed_per_s=_per(now.failed - former.failed, over),
        p50_s=quantile(together, 0.5),
        p95_s=quantile(together, 0.95),
        in_flight=now.in_flight,
        paces=sorted(paces, key=lambda pace: (-pace.per_s, -pace.requests, pace.domain)),
        fallbacks=sorted(_reasons(former, now, over), key=lambda one: (-one.per_s, -one.requests)),
        record=now.record,
    )


def _nothing(at: float) -> Counts:
    return counts([], at)


def _pace(who: Who, former: Counts, now: Counts, over: float) -> Pace:
    spent = _less(now.times.get(who, {}), former.times.get(who, {}))
    return Pace(
        domain=who[0],
        backend=who[1],
        per_s=_per(now.answered[who] - former.answered.get(who, 0.0), over),
        requests=now.answered[who],
        p50_s=quantile(spent, 0.5),
        p95_s=quantile(spent, 0.95),
    )


def _reasons(former: Counts, now: Counts, over: float) -> list[Reason]:
    return [
        Reason(
            reason=reason,
            per_s=_per(total - former.fallbacks.get(reason, 0.0), over),
            requests=total,
        )
        for reason, total in now.fallbacks.items()
    ]


def _per(number: float, seconds: float) -> float:
    return number / seconds if seconds > 0 else 0.0


def _less(now: Mapping[float, float], former: Mapping[float, float]) -> dict[float, float]:
    return {bound: total - former.get(bound, 0.0) for bound, total in now.items()}


def _summed(many: Iterable[Mapping[float, float]]) -> dict[float, float]:
    totals: defaultdict[float, float] = defaultdict(float)
    for one in many:
        for bound, total in one.items():
            totals[bound] += total
    return dict(totals)


def quantile(bounds: Mapping[float, float], share: float) -> float | None:
    """Seconds below which a share of the answers lies, as Prometheus' histogram_quantile reckons:
    straight between the bounds, and at most the highest of them."""
    ordered = sorted(bounds.items())
    total = ordered[-1][1] if ordered else 0.0
    if total <= 0:
        return None
    lower, below = 0.0, 0.0
    for bound, reached in ordered:
        if reached >= share * total:
            if bound == inf:
                return lower
            return lower + (bound - lower) * (share * total - below) / (reached - below)
        lower, below = bound, reached
    return lower


# ---------------------------------------------------------------- the last half hour


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of the last half hour, for a chart."""

    at: list[float]
    lines: dict[str, list[float]]
    """`domain · backend` → requests a second."""
    p50_s: list[float | None]
    p95_s: list[float | None]


class Lookout:
    """Looks at the counters again and again. Made once."""

    def __init__(self, collect: Collect, now: Callable[[], float] = time.time) -> None:
        self._collect = collect
        self._now = now
        self._recent: deque[Counts] = deque(maxlen=_RECENT)
        self._steps: deque[Live] = deque(maxlen=_LOOKS)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # A worker that is starting or ending does not answer; the next look will tell.
            with suppress(Unheard):
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once."""
        now = await self._counted()
        if self._recent:
            self._steps.append(await asyncio.to_thread(between, self._recent[-1], now))
        self._recent.append(now)

    async def live(self) -> Live:
        """The last minute."""
        now = await self._counted()
        former = self._recent[0] if self._recent else now
        return await asyncio.to_thread(between, former, now)

    async def history(self) -> History:
        """The last half hour, as far as it was seen."""
        return await asyncio.to_thread(_history, list(self._steps))

    async def _counted(self) -> Counts:
        return await asyncio.to_thread(counts, await self._collect(), self._now())


def _history(steps: Sequence[Live]) -> History:
    totals: Counter[Who] = Counter()
    for pace in steps[-1].paces if steps else ():
        totals[pace.domain, pace.backend] = int(pace.requests)
    busiest = [who for who, _ in totals.most_common(_LINES)]
    rates = [{(pace.domain, pace.backend): pace.per_s for pace in one.paces} for one in steps]
    return History(
        at=[step.at for step in steps],
        lines={f"{d} · {b}": [step.get((d, b), 0.0) for step in rates] for d, b in busiest},
        p50_s=[step.p50_s for step in steps],
        p95_s=[step.p95_s for step in steps],
    )
