"""The same by domain, tool, tenant, adapter and time, and which parts differ from the rest.

With many slices some differ by chance: p-values are Holm's, over all slices of a report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

import msgspec

from proxy.protocol.evidence import unpaired
from proxy.protocol.evidence.clusters import clustered, effective, sign_flip
from proxy.protocol.evidence.multiple import holm
from proxy.report import estimates
from proxy.report.estimates import Estimate, Observed
from proxy.report.figures import agreeing, differences
from proxy.report.pairs import Pair

_DAY = 24 * 60 * 60
_DAYS = 14
"""Days up to which each is a slice; of more, each week is."""
MOST = 12
"""Slices of one kind, the largest ones."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The pairs that have one thing in common."""

    by: str
    name: str
    agreement: Estimate
    differs_p: float
    """That it agrees as often as the rest does (Fisher, on what the pairs are worth), Holm's."""
    difference: Estimate | None
    """Candidate's accuracy less the baseline's, where there are demonstrations."""
    difference_p: float | None
    """That both are right equally often (exact), Holm's."""


class _Part(NamedTuple):
    by: str
    name: str
    inside: list[Pair]
    outside: list[Pair]


def slices(pairs: Sequence[Pair]) -> list[Slice]:
    """All slices of which there are at least two of a kind, largest first."""
    parts = list(chain.from_iterable(_parts(by, of, pairs) for by, of in _kinds(pairs).items()))
    differing = holm([_differs(part) for part in parts])
    judged = [differences(part.inside) for part in parts]
    p_values = iter(holm([_sided(seen) for seen in judged if seen.values]))
    return [
        Slice(
            by=part.by,
            name=part.name,
            agreement=estimates.share("agreement", agreeing(part.inside)),
            differs_p=differs,
            difference=estimates.difference("difference", seen) if seen.values else None,
            difference_p=next(p_values) if seen.values else None,
        )
        for part, differs, seen in zip(parts, differing, judged, strict=True)
    ]


def _kinds(pairs: Sequence[Pair]) -> dict[str, Callable[[Pair], str]]:
    times = [pair.started_at for pair in pairs] or [0.0]
    is_long = max(times) - min(times) > _DAYS * _DAY
    return {
        "domain": lambda pair: pair.domain,
        "tool": lambda pair: pair.tool or "no call",
        "tenant": lambda pair: pair.tenant,
        "adapter": lambda pair: pair.candidate.adapter or pair.baseline.adapter or "none",
        "week": _week if is_long else _day,
    }


def _day(pair: Pair) -> str:
    return datetime.fromtimestamp(pair.started_at, UTC).strftime("%Y-%m-%d")


def _week(pair: Pair) -> str:
    return datetime.fromtimestamp(pair.started_at, UTC).strftime("%G-W%V")


def _parts(by: str, of: Callable[[Pair], str], pairs: Sequence[Pair]) -> list[_Part]:
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[of(pair)].append(pair)
    if len(groups) < 2:
        return []
    largest = sorted(groups, key=lambda name: len(groups[name]), reverse=True)[:MOST]
    return [
        _Part(by, name, groups[name], [pair for pair in pairs if of(pair) != name])
        for name in largest
    ]


def _differs(part: _Part) -> float:
    inside, outside = _worth(agreeing(part.inside)), _worth(agreeing(part.outside))
    return unpaired.fisher(inside, outside)


def _worth(seen: Observed) -> tuple[int, int]:
    """Hits and n that clustered observations are worth, in whole numbers."""
    if not seen.values:
        return 0, 0
    clusters = seen.clusters
    worth = round(effective(clusters))
    return round(clusters.mean * worth), worth


def _sided(seen: Observed) -> float:
    return sign_flip([int(one) for one in clustered(seen.values, seen.conversations).sums])
