"""What happens next to a candidate: decided from the champion file and the evidence, nothing else.

    none ──▶ loading ──▶ shadow ──▶ canary 5 % ──▶ 25 % ──▶ 50 % ──▶ full ──▶ champion
                │          │           │            │         │       │ held
                └──────────┴───────────┴────────────┴─────────┴───────┴──▶ the champion of before

In `shadow` the candidate is asked, and no client hears it. In `full` the champion is the new one
already, and the former one is `previous`, still loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from proxy.protocol.champions import Alias, Candidate, Stage
from trainer.promotion.rules import Finding
from trainer.promotion.settings import PromotionSettings
from trainer.promotion.settings import Stage as Share

Word: TypeAlias = Literal["promoted", "rolled back", "waiting"]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage has shown so far."""

    stage: Stage
    share: float
    candidate: int = 0
    """Conversations of its side, in this stage; in `shadow`, those in which it was asked."""
    champion: int = 0
    findings: list[Finding] = []
    notes: list[str] = []
    """What nobody can judge, and why."""


class Loaded(msgspec.Struct, frozen=True):
    """What the proxies say of the candidate."""

    waiting: list[str] = []
    """Of each that has not proven it yet, what it says."""
    refused: list[str] = []
    """Of each that never will."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    word: Word
    reason: str
    alias: Alias | None = None
    """What the domain's name shall stand for; None: what it stands for now."""


def begin(alias: Alias, adapter: str, run: str, now: float) -> Step:
    """Have the candidate loaded; it answers nobody yet."""
    candidate = Candidate(adapter=adapter, share=0.0, stage="loading", since=iso(now), run=run)
    changed = replace(alias, candidate=candidate, cooldown_until=None)
    return Step(word="waiting", reason=f"{adapter} is to be loaded", alias=changed)


def anew(alias: Alias, now: float) -> Step:
    """Begin the stage again: by a clock that was put back it has not begun yet, and would be judged
    by nothing, for as long as the clock had been ahead."""
    candidate = replace(_of(alias), since=iso(now))
    reason = f"the clock was put back: {candidate.stage} begins again"
    return Step(word="waiting", reason=reason, alias=replace(alias, candidate=candidate))


def after_loading(alias: Alias, loaded: Loaded, settings: PromotionSettings, now: float) -> Step:
    """On to the first share once every proxy has proven the candidate."""
    candidate = _of(alias)
    if loaded.refused:
        return back(alias, f"not loaded: {'; '.join(loaded.refused)}", settings.cooldown_s, now)
    if not loaded.waiting:
        return _tried(alias, settings, "every proxy has proven it", now)
    if now - seconds(candidate.since) > settings.loading_s:
        late = f"not loaded within {settings.loading_s:g} s: {'; '.join(loaded.waiting)}"
        return back(alias, late, settings.cooldown_s, now)
    return Step(word="waiting", reason=f"loading: {'; '.join(loaded.waiting)}")


def after_looking(alias: Alias, figures: Figures, settings: PromotionSettings, now: float) -> Step:
    """On, back, or wait, by what a stage has shown."""
    candidate = _of(alias)
    worse = [one for one in figures.findings if one.state == "worse"]
    if worse:
        reason = f"{candidate.adapter} is worse: {'; '.join(map(told, worse))}"
        return back(alias, reason, settings.cooldown_s, now)
    spent = now - seconds(candidate.since)
    if candidate.stage == "full":
        return _held(alias, spent, settings)
    if candidate.stage == "shadow":
        return _seen(alias, figures, spent, settings, now)
    stage = _stage(candidate.share, settings)
    lacking = _lacking(stage, figures, spent)
    if not lacking:
        return _grown(alias, settings, now)
    if spent > settings.patience_s:
        late = f"too little traffic in {settings.patience_s:g} s: {lacking}"
        return back(alias, late, 0.0, now)
    return Step(word="waiting", reason=f"{candidate.share:.0%}: {lacking}")


def back(alias: Alias, reason: str, cooldown_s: float, now: float) -> Step:
    """The champion of before, alone; the next candidate has to wait so many seconds."""
    is_full = alias.candidate is not None and alias.candidate.stage == "full"
    goes = alias.candidate is None or is_full
    changed = replace(
        alias,
        champion=alias.previous if goes else alias.champion,
        since=iso(now) if goes else alias.since,
        previous=None if goes else alias.previous,
        candidate=None,
        cooldown_until=iso(now + cooldown_s) if cooldown_s else None,
    )
    return Step(word="rolled back", reason=reason, alias=changed)


def vacant(reason: str, cooldown_s: float, now: float) -> Step:
    """No champion, and no candidate; the next one has to wait so many seconds."""
    until = iso(now + cooldown_s) if cooldown_s else None
    return Step(
        word="rolled back", reason=reason, alias=Alias(since=iso(now), cooldown_until=until)
    )


def told(finding: Finding) -> str:
    """In words: `invalid in 4 of 4 conversations, the champion in 0 of 71`."""
    ours, theirs = finding.candidate, finding.champion
    said = f"{finding.rule.replace('_', ' ')} in {ours.failed} of {ours.of} conversations"
    if finding.limit is not None:
        return f"{said}, {finding.limit:.0%} of them are allowed"
    return f"{said}, the champion in {theirs.failed} of {theirs.of}"


def seconds(at: str) -> float:
    """Seconds since the epoch of a time in the champion file."""
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def iso(at: float) -> str:
    """A time as the champion file has it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- from stage to stage


def _of(alias: Alias) -> Candidate:
    assert alias.candidate is not None, "asked only while there is a candidate"
    return alias.candidate


def _stage(share: float, settings: PromotionSettings) -> Share:
    """The settings' stage of this share, or the next larger one where they were changed."""
    return next((s for s in settings.stages if s.share >= share), settings.stages[-1])


def _lacking(stage: Share, figures: Figures, spent: float) -> str:
    """What the stage still has to see, in words; empty when it has seen enough."""
    n = figures.candidate
    if n < stage.min_conversations:
        more = stage.min_conversations - n
        return f"{more} more conversations needed{'' if n else '; no traffic yet'}"
    if spent < stage.min_s:
        return f"{stage.min_s - spent:.0f} s to go"
    open_ = [one.rule for one in figures.findings if one.state == "open"]
    if open_ and n < stage.max_conversations:
        more = stage.max_conversations - n
        return f"{more} more conversations at most, as {_listed(open_)} is open"
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _grown(alias: Alias, settings: PromotionSettings, now: float) -> Step:
    candidate = _of(alias)
    larger = [stage.share for stage in settings.stages if stage.share > candidate.share]
    reason = f"nothing was found at {candidate.share:.0%}"
    if larger:
        return _on(alias, larger[0], reason, now)
    return _full(alias, reason, now)


def _tried(alias: Alias, settings: PromotionSettings, reason: str, now: float) -> Step:
    """Out of the clients' sight first, where that is wanted."""
    if not settings.shadow_pairs:
        return _on(alias, settings.stages[0].share, reason, now)
    return _on(alias, settings.shadow_share, reason, now, "shadow")


def _seen(
    alias: Alias, figures: Figures, spent: float, settings: PromotionSettings, now: float
) -> Step:
    n, wanted = figures.candidate, settings.shadow_pairs
    if n < wanted and spent < settings.shadow_s:
        left = f"{wanted - n} more conversations, or {settings.shadow_s - spent:.0f} s"
        return Step(word="waiting", reason=f"out of the clients' sight: {left}")
    reason = f"nothing was found in {n} conversations out of the clients' sight"
    return _on(alias, settings.stages[0].share, reason, now)


def _on(alias: Alias, share: float, reason: str, now: float, stage: Stage = "canary") -> Step:
    grown = replace(_of(alias), share=share, stage=stage, since=iso(now))
    return Step(word="waiting", reason=reason, alias=replace(alias, candidate=grown))


def _full(alias: Alias, reason: str, now: float) -> Step:
    candidate = replace(_of(alias), share=1.0, stage="full", since=iso(now))
    changed = replace(
        alias,
        champion=candidate.adapter,
        since=iso(now),
        previous=alias.champion,
        candidate=candidate,
    )
    return Step(word="waiting", reason=reason, alias=changed)


def _held(alias: Alias, spent: float, settings: PromotionSettings) -> Step:
    if spent < settings.hold_s:
        return Step(word="waiting", reason=f"held for another {settings.hold_s - spent:.0f} s")
    return Step(
        word="promoted",
        reason=f"it has held for {settings.hold_s:g} s",
        alias=replace(alias, candidate=None),
    )
