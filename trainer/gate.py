"""The gate: measured answers → promote, hold, not decidable, or refuse, and why.

Every rule says what it found as *holds* (shown), *fails* (the opposite is shown), *open* (too few
items to tell, with how many more it takes) or *no reason* (shown to make no difference). One that
fails refuses; else one that is open leaves it undecided; else one without reason holds; else the
candidate is promoted. All rules must hold, so that the chance of promoting a candidate that
violates one of them is at most that rule's `alpha`, however many rules there are.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.evidence.power import smallest_difference
from trainer import gate_rules as rules
from trainer.errors import GateError, cause_of
from trainer.gate_rules import Evidence, Rule
from trainer.pairs import Pairs
from trainer.recipe import GateSettings

Decision: TypeAlias = Literal["promote", "hold", "not decidable", "refuse"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, by which rules, in words for people."""

    candidate: str
    decision: Decision
    sentence: str
    rules: list[Rule]
    power: str
    """What so many items can show at all."""
    more: int | None = None
    """Items that would decide what is open, at the present rates; None: none is open, or no number
    of items would."""
    at: str
    """When, ISO 8601."""
    dataset: str = ""
    approved_by: str = ""
    sealed: bool = False
    """Whether this is the verdict of the sealed side."""
    may_differ: float | None = None
    """Share of its answers that may be others than the cloud's in a candidate that just passes: the
    limit of a first adapter's canary. None: the rules set none."""


def decide(evidence: Evidence, settings: GateSettings, approved_by: str = "") -> Verdict:
    """The verdict on a candidate."""
    found = [rule for rule in _rules(evidence, settings) if rule is not None]
    decision = _decision(found)
    needs_person = decision == "promote" and settings.approval and not approved_by
    return Verdict(
        candidate=evidence.name,
        decision="hold" if needs_person else decision,
        sentence=_sentence(evidence, decision, found, needs_person),
        rules=found,
        power=_power(
            rules.cloud_pairs(evidence, settings) or rules.champion_pairs(evidence, settings)
        ),
        more=max((rule.more for rule in found if rule.more is not None), default=None),
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        dataset=evidence.dataset,
        approved_by=approved_by,
        sealed=evidence.sealed,
        may_differ=rules.may_differ(evidence, settings),
    )


def _rules(evidence: Evidence, settings: GateSettings) -> Iterable[Rule | None]:
    yield rules.not_worse_than_the_cloud(evidence, settings)
    yield rules.worth_the_change(evidence, settings)
    yield rules.few_false_calls(evidence, settings)
    yield rules.no_more_false_calls(evidence, settings)
    yield rules.valid(evidence, settings)
    yield rules.no_slice_worse(evidence, settings)
    yield rules.critical(evidence, settings)
    yield rules.parity(evidence, settings)
    yield rules.canaries(evidence, settings)
    yield rules.quick(evidence, settings)


def _decision(found: Sequence[Rule]) -> Decision:
    states = {rule.state for rule in found}
    if "fails" in states:
        return "refuse"
    if "open" in states or not found:
        return "not decidable"
    return "hold" if "no reason" in states else "promote"


# ------------------------------------------------------------------ in words


def _sentence(
    evidence: Evidence, decision: Decision, found: Sequence[Rule], needs_person: bool
) -> str:
    said = {state: [r.sentence for r in found if r.state == state] for state in rules.STATES}
    name = evidence.name
    if needs_person:
        return f"Hold {name}: every rule holds, and a person has to approve it."
    match decision:
        case "refuse":
            good = rules.praise(found)
            return f"Refuse {name}: {' Also, '.join(said['fails'])}{f' {good}' if good else ''}"
        case "not decidable":
            return f"{name} cannot be decided yet: {' '.join(said['open']) or 'nothing was asked.'}"
        case "hold":
            return f"Hold {name}: {' '.join(said['no reason'])}"
        case "promote":
            return f"Promote {name}: {' '.join(said['holds'][:2])}"


def _power(pairs: Pairs | None) -> str:
    if pairs is None or not pairs.n:
        return "Nothing was compared."
    worth = round(pairs.n * pairs.worth)
    spread = max(pairs.discordance, 1 / pairs.n)
    least = smallest_difference(worth, spread)
    return (
        f"{pairs.n} items, worth {worth} independent ones, of which {spread:.0%} are answered"
        f" differently, can only show a difference of {100 * least:.1f} points or more."
    )


# ------------------------------------------------------------------ verdicts on disk


def write(verdict: Verdict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(verdict)) + b"\n")


def read(path: Path) -> Verdict:
    """A verdict that was written; raises GateError for what is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GateError(
            f"{path}: {cause_of(error)}; `headrace-trainer gate --out` writes verdicts"
        ) from error
