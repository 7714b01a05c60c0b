"""Promotion: `promote` takes a candidate as far as the evidence lets it now, `rollback` takes it
back.

All state is in the champion file: who is killed is called again, and two who promote the same
candidate do what one would do. Each change is a compare-and-swap, so that of two who promote
different ones, one wins and the other is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from proxy.protocol.champions import Alias, Candidate, Champions, Conflict
from trainer.errors import PromotionError
from trainer.promotion import rules, steps
from trainer.promotion.evidence import BASE, Evidence, Watched, timed
from trainer.promotion.proxies import Proxies
from trainer.promotion.rules import Pair, Request
from trainer.promotion.settings import PromotionSettings
from trainer.promotion.steps import Figures, Step, Word, seconds
from trainer.registry.registry import Registry

_TRIES = 20
"""Times that a change is decided anew because another one came first. Chosen: writers of other
domains come and go; twenty in a row are a fault."""
_BEFORE_S = 3600.0
"""Seconds before a stage whose requests say what is usual. Chosen: an hour, of today's load."""
_SLACK_S = 1.0
"""Seconds by which a stage may seem to begin later than now: its file has whole seconds."""
_ENOUGH = 20
"""Requests that it takes to say what is slow. Chosen: their 95 % is the slowest but one."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Where a promotion stands."""

    word: Word
    reason: str
    figures: Figures | None = None
    run: str = ""
    """As the champion file has it."""


class Promotion:
    """One candidate on its way."""

    def __init__(
        self,
        registry: Registry,
        domain: str,
        candidate: str,
        settings: PromotionSettings,
        evidence: Evidence,
        *,
        run: str = "",
        proxies: Proxies | None = None,
        force: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`force`: why a cooldown does not hold."""
        self._registry = registry
        self._domain = domain
        self._candidate = candidate
        self._settings = settings
        self._evidence = evidence
        self._run = run
        self._proxies = proxies or Proxies([])
        self._force = force
        self._clock = clock

    def advance(self) -> Outcome:
        """As far as it goes now; raises PromotionError when it may not be begun."""
        for _ in range(_TRIES):
            there = self._registry.champions()
            alias = there.domains.get(self._domain, Alias())
            ended = self._ended(alias)
            if ended is not None:
                return ended
            step, figures = self._step(alias)
            if step.alias is not None and not self._changed(step, there):
                continue
            if step.alias is None or step.word != "waiting":
                run = alias.candidate.run if alias.candidate else self._run
                return Outcome(word=step.word, reason=step.reason, figures=figures, run=run)
        raise PromotionError(f"{self._registry}: others write the champion file all the time")

    def _changed(self, step: Step, there: Champions) -> bool:
        try:
            self._registry.change(self._domain, step.alias, there.revision, step.reason)
        except Conflict:
            return False
        return True

    # ------------------------------------------------------------ before it begins, after it ended

    def _ended(self, alias: Alias) -> Outcome | None:
        """What became of it, where it is over."""
        if alias.candidate is not None:
            return None
        if alias.champion == self._candidate:
            return Outcome(word="promoted", reason=f"champion since {alias.since or 'long ago'}")
        if self._force:
            return None
        left_s = seconds(alias.cooldown_until or "") - self._clock()
        # Longer than any cooldown: a clock was ahead when it began, and nobody knows its end.
        is_cooling = 0 < left_s <= self._settings.cooldown_s
        last = self._registry.history(self._domain)[-1:]
        for change in last:
            was = change.before.candidate if change.before else None
            if was is None or was.adapter != self._candidate:
                continue
            if is_cooling or (self._run and was.run == self._run):
                return Outcome(word="rolled back", reason=change.reason, run=was.run)
        if is_cooling:
            why = f" ({last[0].reason})" if last else ""
            raise PromotionError(
                f"{self._domain} gets no candidate until {alias.cooldown_until}, after the last"
                f" one was rolled back{why}; wait, or use --force with a --reason"
            )
        return None

    def _step(self, alias: Alias) -> tuple[Step, Figures | None]:
        candidate, now = alias.candidate, self._clock()
        if candidate is None:
            return steps.begin(alias, self._candidate, self._run, now), None
        if candidate.adapter != self._candidate:
            raise PromotionError(
                f"{self._domain}: {candidate.adapter} is being promoted, in stage"
                f" {candidate.stage} since {candidate.since}{_of_run(candidate)}; wait until it is"
                f" decided, or take it back: headrace-trainer rollback {self._domain}"
            )
        if seconds(candidate.since) > now + _SLACK_S:
            return steps.anew(alias, now), None
        if candidate.stage == "loading":
            loaded = self._proxies.loaded(self._domain, self._candidate)
            return steps.after_loading(alias, loaded, self._settings, now), None
        figures = self._look(alias, candidate)
        return steps.after_looking(alias, figures, self._settings, now), figures

    # ------------------------------------------------------------ evidence

    def _look(self, alias: Alias, candidate: Candidate) -> Figures:
        since, settings = seconds(candidate.since), self._settings
        is_full = candidate.stage == "full"
        watched = Watched(
            domain=self._domain,
            candidate=candidate.adapter,
            champion=(alias.previous if is_full else alias.champion) or BASE,
            since=since,
            by_caller=settings.unit == "caller",
        )
        if candidate.stage == "shadow":
            return _unseen(candidate, watched, self._evidence.pairs(watched), settings)
        requests = self._evidence.requests(watched._replace(since=since - _BEFORE_S))
        before = [one for one in requests if one.at < since and one.side == "champion"]
        limit = _slow(before, settings.slow_factor)
        now = timed([one for one in requests if one.at >= since + settings.settle_s], limit)
        limits = _limits(watched, requests, settings)
        found = (
            rules.held(now, timed(before, limit), settings, limits)
            if is_full
            else rules.findings(now, candidate.share, settings, limits)
        )
        counted = rules.sides(now)
        return Figures(
            stage=candidate.stage,
            share=candidate.share,
            candidate=counted["candidate"],
            champion=counted["champion"],
            findings=found,
            notes=_notes(found),
        )


def promote(
    registry: Registry,
    domain: str,
    candidate: str,
    settings: PromotionSettings,
    evidence: Evidence,
    *,
    run: str = "",
    proxies: Proxies | None = None,
    force: str = "",
) -> Outcome:
    """Take a candidate as far as the evidence lets it now: `waiting` until it is decided.

    To be called again and again, a few seconds apart, while there is traffic: nobody else looks.
    Raises PromotionError when it may not be begun, AdapterError, SourceError.
    """
    return Promotion(
        registry, domain, candidate, settings, evidence, run=run, proxies=proxies, force=force
    ).advance()


def rollback(registry: Registry, domain: str, reason: str, settings: PromotionSettings) -> Outcome:
    """Back to the champion of before, in one change; a candidate under way is taken out.

    Raises PromotionError where there is nothing to go back to.
    """

    def step(alias: Alias) -> Step:
        if alias.candidate is None and alias.previous is None:
            raise PromotionError(
                f"{domain}: no former champion is known; name one:"
                f" headrace-trainer promote ID --at-once, or do without: rollback {domain} --vacate"
            )
        return steps.back(alias, reason, settings.cooldown_s, time.time())

    return _changed(registry, domain, step)


def vacate(registry: Registry, domain: str, reason: str, settings: PromotionSettings) -> Outcome:
    """No champion any more, in one change: the base model answers, or the next backend of the plan,
    as the domain's `without_champion` says. Raises PromotionError where there is none."""

    def step(alias: Alias) -> Step:
        if alias.champion is None and alias.candidate is None:
            raise PromotionError(f"{domain} has no champion to take out")
        return steps.vacant(reason, settings.cooldown_s, time.time())

    return _changed(registry, domain, step)


def _changed(registry: Registry, domain: str, decide: Callable[[Alias], Step]) -> Outcome:
    for _ in range(_TRIES):
        there = registry.champions()
        step = decide(there.domains.get(domain, Alias()))
        try:
            registry.change(domain, step.alias, there.revision, step.reason)
        except Conflict:
            continue
        return Outcome(word=step.word, reason=step.reason)
    raise PromotionError(f"{registry}: others write the champion file all the time")


def _limits(
    watched: Watched, requests: Iterable[Request], settings: PromotionSettings
) -> rules.Limited:
    """What a first adapter may fail; empty where one of ours, be it the base model, answers beside
    it, too."""
    beside = (one for one in requests if one.side == "champion")
    if watched.champion != BASE or any(one.is_ours for one in beside):
        return {}
    return settings.limits.shares


def _unseen(
    candidate: Candidate, watched: Watched, pairs: list[Pair], settings: PromotionSettings
) -> Figures:
    """What the candidate said out of the clients' sight."""
    limits = _limits(watched, (one.champion for one in pairs), settings)
    found = rules.paired(pairs, settings, limits)
    known = [one.same for one in pairs if one.same is not None]
    same = f"it said the same as who answered in {sum(known)} of {len(known)} requests"
    units = len({one.candidate.unit for one in pairs})
    return Figures(
        stage=candidate.stage,
        share=candidate.share,
        candidate=units,
        champion=units,
        findings=found,
        notes=[*([same] if known else []), *_notes(found)],
    )


def _slow(before: list[Request], factor: float) -> float | None:
    """Seconds above which a request is slow; None where too few are known."""
    if len(before) < _ENOUGH:
        return None
    ranked = sorted(one.seconds for one in before)
    return factor * ranked[int(0.95 * (len(ranked) - 1))]


def _notes(findings: list[rules.Finding]) -> list[str]:
    missing = {one.rule for one in findings if one.state == "silent"}
    said = []
    if "disagreed" in missing:
        said.append(
            "nobody compares with a cloud: give the domain a `shadow` to one in routes.yaml,"
            " share 0.05 to 0.1; the trainer learns from it, too"
        )
    return said


def _of_run(candidate: Candidate) -> str:
    return f" (run {candidate.run})" if candidate.run else ""
