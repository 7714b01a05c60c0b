"""When a run is due: each trigger's number beside its threshold.

rows, drift            what is new in the record
agreement, feedback    how the champion does, by tests that hold at every look
calendar               how long ago the last run began
erasure                what the champion learnt from, and must not have
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec

from proxy.protocol import tombstones
from proxy.protocol.agreement import compare
from proxy.protocol.evidence import sequential
from proxy.protocol.evidence.sequential import Tally
from trainer.flywheel import fresh, state
from trainer.flywheel.settings import (
    CalendarSettings,
    Domain,
    FallingSettings,
    TriggerSettings,
    Weekday,
)
from trainer.flywheel.steps import LOWEST
from trainer.promotion.steps import seconds
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.taint import learnt_from
from trainer.sources.base import Skips
from trainer.sources.exchanges import ExchangesSource, Heard

Name: TypeAlias = Literal["rows", "drift", "agreement", "feedback", "calendar", "erasure"]
_DAY = 86_400.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger, looked at once."""

    name: Name
    due: bool
    value: float | None
    """What was found; None where there is nothing to look at yet."""
    threshold: float | None
    """What it is compared with; None where that is not known."""
    sentence: str


class Quality(NamedTuple):
    """What the record says of a champion's answers, one observation a conversation, so that they
    are independent: 1 or 0 each."""

    agreed: list[float]
    """With the cloud, where that called a tool."""
    liked: list[float]


def readings(domain: Domain, now: float | None = None) -> list[Reading]:
    """All triggers of a domain that are switched on. `now`: seconds since the epoch."""
    given, at = domain.settings.triggers, time.time() if now is None else now
    return [
        *_new(domain, given),
        *_falling(domain, given),
        *_calendar(domain, given, at),
        *_erasure(domain, given),
    ]


def is_owed(found: Iterable[Reading]) -> bool:
    """Whether a run is due even without enough new rows."""
    return any(reading.due and reading.name == "erasure" for reading in found)


def due(found: Iterable[Reading]) -> str:
    """Why to run, in a sentence; empty where there is no reason."""
    return " ".join(reading.sentence for reading in found if reading.due)


# ------------------------------------------------------------------ what is new


def _new(domain: Domain, given: TriggerSettings) -> Iterator[Reading]:
    if given.rows is None and given.drift is None:
        return
    found = fresh.look(domain)
    if given.rows is not None:
        said = f"{found.rows} new clean rows, of {given.rows}."
        yield _reached("rows", found.rows, given.rows, said)
    if given.drift is not None:
        tools = f" ({', '.join(found.tools[:3])})" if found.tools else ""
        said = f"{found.drifted} new rows offer tools by unknown schemas{tools}, of {given.drift}."
        yield _reached("drift", found.drifted, given.drift, said)


def _reached(name: Name, count: int, threshold: int, said: str) -> Reading:
    return Reading(
        name=name, due=count >= threshold, value=count, threshold=threshold, sentence=said
    )


# ------------------------------------------------------------------ how the champion does


def _falling(domain: Domain, given: TriggerSettings) -> Iterator[Reading]:
    alias = domain.alias
    champion = alias.champion
    if champion is None or (given.agreement is None and given.feedback is None):
        return
    found = quality(_heard(domain, seconds(alias.since)), champion)
    if given.agreement is not None:
        floor = given.agreement.floor
        known = floor if floor is not None else _measured(domain, champion)
        what = f"{champion} agrees with the cloud"
        yield _fell("agreement", found.agreed, known, given.agreement, what)
    if given.feedback is not None:
        what = f"{champion}'s answers are liked"
        yield _fell("feedback", found.liked, given.feedback.floor, given.feedback, what)


def _heard(domain: Domain, since: float) -> Iterator[Heard]:
    for source in domain.recipe.sources:
        if isinstance(source, ExchangesSettings):
            yield from ExchangesSource(source, Skips()).heard(since)


def quality(heard: Iterable[Heard], champion: str) -> Quality:
    """The champion's answers, by the first of each conversation that tells something."""
    agreed: dict[str, float] = {}
    liked: dict[str, float] = {}
    for one in heard:
        group = f"{one.exchange.tenant}:{one.exchange.conversation or one.exchange.id}"
        ours = next((a for a in one.answers if a.adapter == champion), None)
        if ours is None:
            continue
        if one.cloud is not None and one.cloud.answer.tool_calls:
            agrees = compare(ours.answer, one.cloud.answer).agrees
            agreed.setdefault(group, float(agrees))
        if one.thumb is not None and ours is one.answers[0]:
            liked.setdefault(group, float(one.thumb))
    return Quality([*agreed.values()], [*liked.values()])


def _measured(domain: Domain, champion: str) -> float | None:
    """The lower end of what the champion's own run measured; None for one of another origin."""
    for run in state.runs(domain.runs):
        low = run.manifest.step("evaluate").figures.get(LOWEST)
        if run.manifest.adapter == champion and isinstance(low, float | int):
            return float(low)
    return None


def _fell(
    name: Name, seen: list[float], floor: float | None, given: FallingSettings, what: str
) -> Reading:
    if floor is None:
        said = f"{what}: no run here measured how often; set `triggers.{name}.floor`."
        return Reading(name=name, due=False, value=None, threshold=None, sentence=said)
    if not seen:
        said = f"{what}: nothing tells yet; below {floor:.0%} a run is due."
        return Reading(name=name, due=False, value=None, threshold=floor, sentence=said)
    tally = Tally(seen)
    high = sequential.upper(tally, given.certainty)
    said = (
        f"{what} {tally.mean:.0%} of {len(seen)} times (at most {high:.0%}, at every look);"
        f" below {floor:.0%} a run is due."
    )
    return Reading(name=name, due=high < floor, value=high, threshold=floor, sentence=said)


# ------------------------------------------------------------------ calendar


def _calendar(domain: Domain, given: TriggerSettings, now: float) -> Iterator[Reading]:
    if given.calendar is None:
        return
    begun = [run.manifest.started_at for run in state.runs(domain.runs)]
    # One that is yet to begin was begun by a clock that was ahead: it puts nothing off.
    begun = [at for at in begun if at <= now]
    ago = (now - max(begun)) / _DAY if begun else None
    limit = _limit(given.calendar, now)
    told = "no run yet" if ago is None else f"the last run began {ago:.1f} days ago"
    yield Reading(
        name="calendar",
        due=ago is None or ago >= limit,
        value=ago,
        threshold=limit,
        sentence=f"{told[0].upper()}{told[1:]}; {limit:.1f} are the limit.",
    )


def _limit(given: CalendarSettings, now: float) -> float:
    """Days ago from which on a run is too long ago."""
    limits = [given.every_days] if given.every_days is not None else []
    if given.weekday is not None:
        limits.append((now - _last(given.weekday, given.hour, now)) / _DAY)
    return min(limits)


def _last(weekday: Weekday, hour: int, now: float) -> float:
    """When it was this hour of this day of the week last, in seconds since the epoch."""
    days = range(7) if weekday == "daily" else [get_args(Weekday).index(weekday)]
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    moment = at.replace(hour=hour, minute=0, second=0, microsecond=0)
    while moment > at or moment.weekday() not in days:
        moment -= datetime.timedelta(days=1)
    return moment.timestamp()


# ------------------------------------------------------------------ erasure


def _erasure(domain: Domain, given: TriggerSettings) -> Iterator[Reading]:
    champion = domain.alias.champion
    if champion is None or not given.erasure:
        return
    learnt = learnt_from(domain.registry, champion)
    records = [one for one in domain.recipe.sources if isinstance(one, ExchangesSettings)]
    gone = (one for record in records for one in tombstones.read(Path(record.directory)))
    lost = {one.id: one.erased_at for one in gone if one.id in learnt}
    # A run that began later has had its say: that it was refused is no reason to try each hour.
    begun = max((run.manifest.started_at for run in state.runs(domain.runs)), default=0.0)
    said = f"{champion} learnt from {len(lost)} exchanges that were erased."
    is_due = any(at > begun for at in lost.values())
    yield Reading(name="erasure", due=is_due, value=len(lost), threshold=1, sentence=said)
