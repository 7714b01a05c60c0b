"""Live comparisons: conversations that were put on a side by chance, each with its own requests.

The sides answered different requests, so that nothing is paired: what became of the requests is
compared by group, as they were assigned, whoever answered in the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from proxy.protocol.evidence import unpaired
from proxy.protocol.evidence.clusters import effective
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.multiple import holm
from proxy.report import estimates
from proxy.report.estimates import Estimate, Observed


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request that was assigned."""

    side: str
    """As the exchange has it: `split:azure`, `canary:geo-v8`."""
    conversation: str
    completed: bool
    rescued: bool
    """Whether another attempt than the first answered."""
    total_s: float
    cost_usd: float | None
    liked: float | None
    """Boolean feedback, 1 or 0, where somebody gave some."""
    tools_failed: float | None
    """1 where a tool that it called told an error, 0 where it did not; None where none is known."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One share on both sides."""

    name: str
    first: Estimate
    second: Estimate
    difference: Interval
    """Of the first's share less the second's, for one look."""
    p: float
    """That both shares are equal (Fisher, on what the requests are worth); Holm's, by trial."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides."""

    first: str
    second: str
    shares: list[Comparison]
    times: list[Estimate]
    costs: list[Estimate]


_SHARES = ("completed", "rescued", "liked", "tools_failed")
_TOLD = {
    "completed": "completed",
    "rescued": "answered by another attempt than the first",
    "liked": "good by feedback",
    "tools_failed": "tool told an error",
}


def trials(requests: Iterable[Assigned]) -> list[Trial]:
    """A trial for each two sides of a kind: of a split, or a canary and its champion."""
    sides: defaultdict[str, list[Assigned]] = defaultdict(list)
    for one in requests:
        sides[one.side].append(one)
    return [_trial(a, b, sides[a], sides[b]) for a, b in _opposed(sorted(sides))]


def _opposed(sides: Sequence[str]) -> list[tuple[str, str]]:
    splits = [side for side in sides if side.startswith("split:")]
    canaries = [side for side in sides if side.startswith("canary:")]
    champions = [side for side in sides if side.startswith("champion:")]
    inner = [(a, b) for at, a in enumerate(splits) for b in splits[at + 1 :]]
    return [*inner, *((canary, champion) for canary in canaries for champion in champions)]


def _trial(first: str, second: str, ours: list[Assigned], theirs: list[Assigned]) -> Trial:
    found = [(name, _seen(ours, name), _seen(theirs, name)) for name in _SHARES]
    told = [(name, a, b) for name, a, b in found if a.values and b.values]
    p_values = holm([unpaired.fisher(_whole(a), _whole(b)) for _, a, b in told])
    return Trial(
        first=first,
        second=second,
        shares=[_comparison(*one, p) for one, p in zip(told, p_values, strict=True)],
        times=[
            estimates.quantile(f"{side}: median", _seen(group, "total_s"), 0.5)
            for side, group in ((first, ours), (second, theirs))
        ],
        costs=[
            estimates.mean(f"{side}: 1,000 requests", _seen(group, "cost_usd"), times=1000)
            for side, group in ((first, ours), (second, theirs))
        ],
    )


def _seen(group: Sequence[Assigned], field: str) -> Observed:
    known = [one for one in group if getattr(one, field) is not None]
    return Observed([float(getattr(one, field)) for one in known], [o.conversation for o in known])


def _comparison(name: str, first: Observed, second: Observed, p: float) -> Comparison:
    return Comparison(
        name=_TOLD[name],
        first=estimates.share(_TOLD[name], first),
        second=estimates.share(_TOLD[name], second),
        difference=unpaired.difference(_worth(first), _worth(second)),
        p=p,
    )


def _worth(seen: Observed) -> tuple[float, float]:
    worth = effective(seen.clusters)
    return seen.clusters.mean * worth, worth


def _whole(seen: Observed) -> tuple[int, int]:
    hits, n = _worth(seen)
    return round(hits), round(n)
