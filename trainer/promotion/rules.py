"""Stop rules: does the candidate fail more of its conversations than the champion?

Chance puts each conversation on the candidate's side with probability `share`, whatever it is
about. If the candidate is as good as the champion, or better, a conversation that goes wrong is the
candidate's with at most that probability. So we look at failed conversations alone, each once, in
their order, and bet that more of them are the candidate's (evidence.sequential). It holds at every
look, and though traffic changes from hour to hour: both sides get the same.

Where the candidate was asked out of the client's sight, both said something to the same request. If
it is no worse, a conversation that only one of them failed is the candidate's with at most one
chance in two: the same bet.

Where nobody else answers, while a new champion is held, we compare with the former one's share of
failures before; that is no experiment, hence a margin.

A domain's first adapter has a cloud beside it, which never disagrees with itself: every failure
would be the candidate's. So what only one of ours can fail has a limit instead, and we bet that the
candidate is above it, by the first request of each conversation that tells something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.evidence import sequential
from trainer.promotion.settings import UNSEEN, PromotionSettings, RuleName

Side: TypeAlias = Literal["candidate", "champion"]
State: TypeAlias = Literal["worse", "not worse", "open", "silent"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request; None: nobody knows."""

    at: float
    """Seconds since the epoch."""
    unit: str
    """The conversation, or the caller: what chance assigns as a whole."""
    side: Side
    is_drawn: bool = True
    """Whether chance put it there; not where one adapter answered all."""
    is_ours: bool = True
    """Whether one of ours said anything, an adapter or the base model; only a cloud did where the
    domain has none to ask."""
    seconds: float = 0.0
    """Until the client had its answer."""
    invalid: bool | None = None
    """Whether its adapter wrote a call that the request's schemas do not allow."""
    rescued: bool | None = None
    """Whether somebody else than its adapter answered in the end."""
    disagreed: bool | None = None
    """Whether its answer is another one than the cloud's."""
    disliked: bool | None = None
    """Thumbs down."""
    tool_failed: bool | None = None
    """Whether a tool that it called told an error."""
    slow: bool | None = None


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What a client was answered, and what the candidate would have."""

    candidate: Request
    champion: Request
    """Of whoever answered."""
    same: bool | None = None
    """Whether both said the same; None: nobody can tell."""


class Count(msgspec.Struct, frozen=True):
    """Conversations of a side, and those that went wrong."""

    failed: int
    of: int

    @property
    def share(self) -> float:
        return self.failed / self.of if self.of else 0.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says now."""

    rule: RuleName
    state: State
    """`silent`: the record says nothing of it."""
    candidate: Count
    champion: Count
    p: float
    """Always valid; that the candidate is not worse. Below the test's alpha it stops."""
    limit: float | None = None
    """Share of its conversations that the candidate may fail; None: it is compared with the
    champion."""


Limited: TypeAlias = Mapping[RuleName, float]
"""Rule → share that a domain's first adapter may fail; empty where it is compared with another."""


def findings(
    requests: Sequence[Request], share: float, settings: PromotionSettings, limits: Limited
) -> list[Finding]:
    """Each rule, on the requests of one stage with this share."""
    drawn = [one for one in requests if one.is_drawn]
    return [
        _limited(rule, drawn, limits[rule], settings)
        if rule in limits
        else _concurrent(rule, drawn, share, settings)
        for rule in settings.rules
    ]


def paired(pairs: Sequence[Pair], settings: PromotionSettings, limits: Limited) -> list[Finding]:
    """Each rule that an unseen answer tells something of."""
    ours = [pair.candidate for pair in pairs]
    return [
        _limited(rule, ours, limits[rule], settings)
        if rule in limits
        else _paired(rule, pairs, settings)
        for rule in settings.rules
        if rule in UNSEEN
    ]


def held(
    now: Sequence[Request],
    before: Sequence[Request],
    settings: PromotionSettings,
    limits: Limited,
) -> list[Finding]:
    """Each rule, on a new champion's requests beside the former one's before it."""
    return [
        _limited(rule, now, limits[rule], settings)
        if rule in limits
        else _successive(rule, now, before, settings)
        for rule in settings.rules
    ]


def sides(requests: Iterable[Request]) -> dict[Side, int]:
    """How many conversations each side has."""
    units: dict[str, Side] = {}
    for one in requests:
        units.setdefault(one.unit, one.side)
    return {side: sum(found == side for found in units.values()) for side in _SIDES}


_SIDES: tuple[Side, ...] = ("candidate", "champion")
_SHOWN = 0.95
"""Certainty with which a candidate is shown not to be worse. Chosen: usual."""


def _concurrent(
    rule: RuleName, requests: Sequence[Request], share: float, settings: PromotionSettings
) -> Finding:
    counts = _counts(rule, requests)
    ours, theirs = counts["candidate"], counts["champion"]
    failed = sequential.share(ours.failed, ours.failed + theirs.failed)
    p = sequential.p_above(failed, share)
    return _finding(rule, counts, p, settings)


def _limited(
    rule: RuleName, requests: Sequence[Request], limit: float, settings: PromotionSettings
) -> Finding:
    failed: dict[str, bool] = {}
    for one in requests:
        found: bool | None = getattr(one, rule)
        if found is not None and one.side == "candidate":
            failed.setdefault(one.unit, found)
    ours = Count(sum(failed.values()), len(failed))
    p = sequential.p_above(sequential.share(ours.failed, ours.of), limit)
    counts: dict[Side, Count] = {"candidate": ours, "champion": Count(0, 0)}
    return _finding(rule, counts, p, settings, limit)


def _paired(rule: RuleName, pairs: Sequence[Pair], settings: PromotionSettings) -> Finding:
    ours: dict[str, bool] = {}
    theirs: dict[str, bool] = {}
    for pair in pairs:
        mine, other = getattr(pair.candidate, rule), getattr(pair.champion, rule)
        if mine is not None and other is not None:
            unit = pair.candidate.unit
            ours[unit] = ours.get(unit, False) or mine
            theirs[unit] = theirs.get(unit, False) or other
    only_ours = sum(ours[unit] and not theirs[unit] for unit in ours)
    only_theirs = sum(theirs[unit] and not ours[unit] for unit in ours)
    failed = sequential.share(only_ours, only_ours + only_theirs)
    counts: dict[Side, Count] = {
        "candidate": Count(sum(ours.values()), len(ours)),
        "champion": Count(sum(theirs.values()), len(theirs)),
    }
    return _finding(rule, counts, sequential.p_above(failed, 0.5), settings)


def _successive(
    rule: RuleName, now: Sequence[Request], before: Sequence[Request], settings: PromotionSettings
) -> Finding:
    counts: dict[Side, Count] = {
        "candidate": _counts(rule, now)["candidate"],
        "champion": _counts(rule, before)["champion"],
    }
    ours, theirs = (sequential.share(one.failed, one.of) for one in counts.values())
    certainty = 1 - settings.alpha_of_a_test / 2
    excess = sequential.lower(ours, certainty) - sequential.upper(theirs, certainty)
    is_worse = bool(theirs.n) and excess > settings.margin
    return _finding(rule, counts, 0.0 if is_worse else 1.0, settings)


def _finding(
    rule: RuleName,
    counts: dict[Side, Count],
    p: float,
    settings: PromotionSettings,
    limit: float | None = None,
) -> Finding:
    ours, theirs = counts["candidate"], counts["champion"]
    state: State = "open"
    if not ours.of:
        state = "silent"
    elif p < settings.alpha_of_a_test:
        state = "worse"
    elif _is_not_worse(ours, theirs, limit, settings.margin):
        state = "not worse"
    return Finding(rule=rule, state=state, candidate=ours, champion=theirs, p=p, limit=limit)


def _is_not_worse(ours: Count, theirs: Count, limit: float | None, margin: float) -> bool:
    certainty = (1 + _SHOWN) / 2
    most = sequential.upper(sequential.share(ours.failed, ours.of), certainty)
    least = sequential.lower(sequential.share(theirs.failed, theirs.of), certainty)
    return most - (least if limit is None else limit) < margin


def _counts(rule: RuleName, requests: Sequence[Request]) -> dict[Side, Count]:
    """By side; a conversation has failed when one of its requests has."""
    failed: dict[str, bool] = {}
    side: dict[str, Side] = {}
    for one in requests:
        found: bool | None = getattr(one, rule)
        if found is not None:
            failed[one.unit] = failed.get(one.unit, False) or found
            side.setdefault(one.unit, one.side)
    return {
        of: Count(
            sum(bad for unit, bad in failed.items() if side[unit] == of),
            sum(found == of for found in side.values()),
        )
        for of in _SIDES
    }
