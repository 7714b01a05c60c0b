"""What became of the runs: a domain's status, the history of its runs, two runs side by side."""

from __future__ import annotations

import msgspec

from proxy.protocol.champions import Candidate
from trainer import dataset
from trainer.errors import DatasetError, FlywheelError
from trainer.flywheel import state, triggers
from trainer.flywheel.lock import holder
from trainer.flywheel.settings import Domain
from trainer.flywheel.state import Manifest, Run
from trainer.flywheel.triggers import Reading


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a domain is doing."""

    domain: str
    champion: str | None
    previous: str | None
    candidate: Candidate | None
    """One that is on its way to clients."""
    cooldown_until: str | None
    run: Past | None
    """The last one."""
    working: str | None
    """Who works on it now."""
    triggers: list[Reading]


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a line."""

    run: str
    adapter: str
    cause: str
    state: str
    """`running`, `promoting`, `interrupted`, or `finished`."""
    outcome: str
    reason: str
    step: str
    """The one that it is at; empty where it is over."""
    started_at: float
    finished_at: float | None
    figures: dict[str, int | float | str]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs side by side; each line is `what: first → second`."""

    first: str
    second: str
    recipe: list[str]
    dataset: list[str]
    figures: list[str]
    verdict: list[str]


def status(domain: Domain) -> Status:
    """A domain as it is now; reads the record for what its triggers say."""
    alias, who, past = domain.alias, holder(domain.runs), history(domain)
    return Status(
        domain=domain.name,
        champion=alias.champion,
        previous=alias.previous,
        candidate=alias.candidate,
        cooldown_until=alias.cooldown_until,
        run=past[-1] if past else None,
        working=str(who) if who is not None else None,
        triggers=triggers.readings(domain),
    )


def history(domain: Domain) -> list[Past]:
    """A domain's runs, oldest first."""
    working = holder(domain.runs) is not None
    return [_past(run.manifest, working) for run in state.runs(domain.runs)]


def _past(manifest: Manifest, working: bool) -> Past:
    at = next((s.name for s in manifest.steps if s.state not in ("done", "skipped")), "")
    is_over = manifest.state == "finished"
    going = "promoting" if manifest.is_waiting else "running" if working else "interrupted"
    return Past(
        run=manifest.id,
        adapter=manifest.adapter,
        cause=manifest.cause,
        state="finished" if is_over else going,
        outcome=manifest.outcome,
        reason=manifest.reason or manifest.step("promote").reason,
        step="" if is_over else at,
        started_at=manifest.started_at,
        finished_at=manifest.finished_at,
        figures=manifest.figures(),
    )


def find(domains: list[Domain], name: str) -> Run:
    """The run with this id, or the last one that made this adapter; raises FlywheelError."""
    found = [
        run
        for domain in domains
        for run in state.runs(domain.runs)
        if name in (run.manifest.id, run.manifest.adapter)
    ]
    if not found:
        raise FlywheelError(f"no run {name!r}; `headrace-trainer history` lists them")
    return found[-1]


def diff(first: Run, second: Run) -> Difference:
    """What is different."""
    one, other = first.manifest, second.manifest
    recipes = [msgspec.to_builtins(run.recipe) for run in (one, other)]
    return Difference(
        first=one.id,
        second=other.id,
        recipe=list(dataset.changes(*recipes)),
        dataset=_datasets(first, second),
        figures=list(dataset.changes(one.figures(), other.figures())),
        verdict=list(dataset.changes(_verdict(one), _verdict(other))),
    )


def _datasets(first: Run, second: Run) -> list[str]:
    """Rows that came, went or moved; nothing where one of the two has no dataset."""
    try:
        found = dataset.diff(first.directory / "dataset", second.directory / "dataset")
    except DatasetError:
        return []
    return [
        *(f"{side}: {count} rows added" for side, count in found.added.items()),
        *(f"{side}: {count} rows removed" for side, count in found.removed.items()),
        *(f"{move}: {count} rows moved" for move, count in found.moved.items()),
        *(f"versions.{line}" for line in found.versions),
    ]


def _verdict(manifest: Manifest) -> dict[str, str]:
    return {"outcome": manifest.outcome, "reason": manifest.reason}
