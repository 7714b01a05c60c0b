"""A run, from the traffic since the last one to a promoted, or refused, adapter.

lock → take up what was interrupted, or begin with a reserved id → step after step → outcome

A run that is killed, or told to stop, is taken up where it was, and makes the same bundle. One that
an error ended after its bundle was made goes on, too, since a server that was away may be back; one
that failed before is over, and the next run begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import msgspec

from proxy.protocol.adapter import AdapterError
from proxy.protocol.base_model import BaseModelError
from proxy.protocol.formats.base import UnknownTemplate
from trainer import gate
from trainer.errors import FlywheelError, Stopped, TrainerError
from trainer.flywheel import fresh, state
from trainer.flywheel.events import Both, Events, Log
from trainer.flywheel.lock import held, holder
from trainer.flywheel.settings import Domain
from trainer.flywheel.state import LOG, STEPS, Manifest, Outcome, Run, StepName
from trainer.flywheel.steps import DO, Skipped, Waiting, Work, verdict_of
from trainer.pipeline import Reserved


class Interrupted(FlywheelError):
    """Something outside of the run, such as a full disk: nothing is decided by it."""


PAUSE_S = 2.0
"""Seconds between two looks at a promotion. Chosen: a bad candidate is to be gone within ten."""
_AGAIN: frozenset[StepName] = frozenset(STEPS[STEPS.index("register") :])
"""Steps that are tried again in the next run after they failed."""


class Ended(NamedTuple):
    """What a call came to."""

    domain: str
    outcome: Outcome | Literal["nothing to do", "would run", "waiting"]
    """`waiting`: the promotion goes on when there is more evidence; call again."""
    reason: str
    run: str = ""


def run(
    domain: Domain,
    events: Events,
    *,
    cause: str = "manual",
    anyway: bool = False,
    anew: bool = False,
    forced: StepName | None = None,
) -> Ended:
    """Do what there is to do for a domain. `anyway`: even without enough new rows; `anew`: give up
    a run that is not over; `forced`: this step of the last run, and those after it, again.

    Raises Locked where another process works on the domain, and TrainerError for a step that
    cannot be done.
    """
    with held(domain.runs):
        found = _forced(domain, forced) if forced else unfinished(domain)
        if found is not None and anew:
            found.finish("failed", "given up: a new run was asked for")
        elif found is not None:
            return _work(domain, found, events)
        new_rows = fresh.look(domain).rows
        if new_rows < domain.settings.least_new and not anyway:
            ended = _nothing(domain, new_rows)
            events.tell("nothing_to_do", domain=domain.name, reason=ended.reason)
            return ended
        return _work(domain, _begun(domain, new_rows, cause), events)


def is_promoting(domain: Domain) -> bool:
    """Whether a candidate of the domain's last run is on its way."""
    found = unfinished(domain)
    return found is not None and found.manifest.is_waiting


def dry_run(domain: Domain, events: Events, *, anyway: bool = False) -> Ended:
    """Say what `run` would do, and touch nothing."""
    who = holder(domain.runs)
    if who is not None:
        raise FlywheelError(f"{domain.name} is being run by {who}")
    found = unfinished(domain)
    if found is not None:
        step = _next(found.manifest)
        events.tell("would_resume", domain=domain.name, run=found.manifest.id, step=step)
        return Ended(domain.name, "would run", f"go on at {step}", found.manifest.id)
    new_rows = fresh.look(domain).rows
    if new_rows < domain.settings.least_new and not anyway:
        ended = _nothing(domain, new_rows)
        events.tell("nothing_to_do", domain=domain.name, reason=ended.reason)
        return ended
    id = reserved(domain).id
    events.tell("would_begin", domain=domain.name, adapter=id, new_rows=new_rows)
    return Ended(domain.name, "would run", f"make {id} with {new_rows} new rows")


def unfinished(domain: Domain) -> Run | None:
    """The run that was interrupted, if there is one."""
    last = last_run(domain)
    return last if last is not None and last.manifest.state == "running" else None


def last_run(domain: Domain) -> Run | None:
    """The domain's latest run, over or not."""
    return max(state.runs(domain.runs), key=lambda run: run.manifest.id, default=None)


def reserved(domain: Domain) -> Reserved:
    """The next id that neither a bundle nor a run has."""
    runs = (run.manifest.adapter for run in state.runs(domain.runs))
    return Reserved.next(domain.adapters, domain.name, (*domain.bundles, *runs))


# ------------------------------------------------------------------ beginning


def _nothing(domain: Domain, new_rows: int) -> Ended:
    least = domain.settings.least_new
    reason = f"{new_rows} new clean rows since the last run; `least_new` asks for {least}."
    return Ended(domain.name, "nothing to do", reason)


def _begun(domain: Domain, new_rows: int, cause: str) -> Run:
    """A run with its id, its adapter's id, its recipe and its end of time written down."""
    now, bundle, former = time.time(), reserved(domain), last_run(domain)
    second = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    manifest = Manifest(
        id=f"{second}-{bundle.id}",
        domain=domain.name,
        cause=cause,
        adapter=bundle.id,
        created_at=bundle.created_at,
        champion=domain.alias.champion or "",
        general=domain.general,
        former=former.manifest.id if former is not None else "",
        until=now,
        new_rows=new_rows,
        recipe=domain.recipe,
    )
    return Run.begin(domain.runs, manifest)


def _forced(domain: Domain, step: StepName) -> Run:
    """The last run, with this step and those after it forgotten."""
    last = last_run(domain)
    if last is None:
        raise FlywheelError(f"{domain.name} has no run yet; leave --force-step out")
    if step not in _AGAIN and last.manifest.adapter in domain.bundles:
        raise FlywheelError(
            f"{last.manifest.adapter} is registered, and a bundle never changes: begin a new run"
            " (--anyway), or force a step after `train`"
        )
    if STEPS.index(step) <= STEPS.index("sealed") and _has_looked(last):
        raise FlywheelError(
            f"{last.manifest.adapter} has had its look at the sealed rows, and there is no second:"
            " begin a new run (--anyway)"
        )
    last.forget(step, domain.alias.champion or "")
    return last


def _has_looked(run: Run) -> bool:
    return run.manifest.step("sealed").state == "done"


# ------------------------------------------------------------------ working


def _work(domain: Domain, run: Run, events: Events) -> Ended:
    said = Both(events, Log(run.directory / LOG))
    first = _next(run.manifest)
    if not run.manifest.is_waiting:
        _tell_of_begin(run.manifest, first, said)
    for name in STEPS[STEPS.index(first) :]:
        _step(name, Work(domain, run, said))
    if run.manifest.is_waiting:
        return Ended(domain.name, "waiting", run.manifest.step("promote").reason, run.manifest.id)
    return _finished(run, said)


def _tell_of_begin(manifest: Manifest, first: StepName, events: Events) -> None:
    resumed = manifest.step(first).tries > 0 or first != STEPS[0]
    events.tell(
        "run_resumed" if resumed else "run_begun",
        domain=manifest.domain,
        run=manifest.id,
        adapter=manifest.adapter,
        cause=manifest.cause,
        new_rows=manifest.new_rows,
        step=first,
    )


def _next(manifest: Manifest) -> StepName:
    """The first step that is not over."""
    waiting = (s.name for s in manifest.steps if s.state not in ("done", "skipped"))
    return next(waiting, STEPS[-1])


def _step(name: StepName, work: Work) -> None:
    run, events, domain = work.run, work.events, work.domain.name
    waited = run.manifest.step(name).reason if run.manifest.is_waiting else ""
    if not waited:
        run.started(name)
        events.tell("step_started", domain=domain, step=name)
    try:
        with _translated(name):
            figures = DO[name](work)
    except Skipped as skipped:
        run.ended(name, "skipped", str(skipped))
        events.tell("step_skipped", domain=domain, step=name, reason=str(skipped))
    except Waiting as waiting:
        # Every look is the same until something is new: only that is written down.
        if str(waiting) != waited:
            run.ended(name, "waiting", str(waiting))
            events.tell("step_waits", domain=domain, step=name, reason=str(waiting))
    except (Stopped, Interrupted):
        raise
    except TrainerError as error:
        _failed(name, work, error)
        raise
    else:
        run.ended(name, "done", figures=figures)
        told = ", ".join(f"{key} {value}" for key, value in figures.items())
        events.tell("step_done", domain=domain, step=name, told=told)


@contextmanager
def _translated(name: StepName) -> Iterator[None]:
    """What the protocol and the machine raise, as errors of ours."""
    try:
        yield
    except (AdapterError, BaseModelError, UnknownTemplate) as error:
        raise FlywheelError(str(error)) from error
    except OSError as error:
        raise Interrupted(f"{name}: {error}; the same command goes on from there") from error


def _failed(name: StepName, work: Work, error: TrainerError) -> None:
    work.run.ended(name, "failed", str(error))
    work.events.tell("step_failed", domain=work.domain.name, step=name, reason=str(error))
    if name not in _AGAIN:
        work.run.finish("failed", f"{name}: {error}")


def _finished(run: Run, events: Events) -> Ended:
    verdict, manifest = gate.read(verdict_of(run)), run.manifest
    promoted = manifest.step("promote").figures
    outcome: Outcome = msgspec.convert(promoted.get("word", verdict.decision), Outcome)
    reason = str(promoted["reason"]) if outcome == "rolled back" else verdict.sentence
    run.finish(outcome, reason)
    events.tell(
        "run_finished",
        domain=manifest.domain,
        run=manifest.id,
        adapter=manifest.adapter,
        outcome=outcome,
        reason=reason,
    )
    return Ended(manifest.domain, outcome, reason, manifest.id)
