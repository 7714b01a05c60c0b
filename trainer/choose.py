"""Which of several shall be a domain's candidate: its new adapter, a general one, or both in turn.

All have answered the same rows. Every two are compared by their paired answers, Holm's correction
over all comparisons; the simplest to which no other is shown to be superior is chosen: an option
further down costs more to run, and has to be worth it. The gate decides on the chosen one as ever.

An option that asks a second adapter where the first one's answer is invalid, or less sure than a
floor, is what a plan of two local backends does (docs/evaluation.md). It needs no evaluation of
its own: what it would have said follows from what both said.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import msgspec

from proxy.protocol.evidence.multiple import holm
from trainer.errors import GateError
from trainer.evaluate import Report, recounted
from trainer.figures import Answered
from trainer.gate_rules import answers, right_by
from trainer.pairs import pair
from trainer.recipe import GateSettings
from trainer.subject import Subject


class Option(NamedTuple):
    """One that may be chosen."""

    reports: list[Report]
    asks: tuple[str, ...]
    """Adapters, the first that is asked first."""
    floor: float | None = None
    """Confidence below which the next one is asked, 0 to 1."""

    @property
    def name(self) -> str:
        return str(self.reports[0].subject)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two options on the rows that both answered."""

    first: str
    second: str
    n: int
    gain: float
    """The second's share of right answers less the first's."""
    p: float
    """Exact, two-sided, after Holm's correction: that both are right equally often."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Who was chosen, and why."""

    chosen: str
    asks: tuple[str, ...]
    sentence: str
    comparisons: list[Comparison]
    routes: str
    """What routes.yaml needs beside the champion; empty for an adapter alone."""


def in_turn(first: Option, second: Option, floor: float | None = None) -> Option:
    """The second is asked where the first one's answer is invalid, or its calls less sure than
    `floor`; raises GateError unless both answered the same sides."""
    others = {report.side: report for report in second.reports}
    if others.keys() != {report.side for report in first.reports}:
        raise GateError(f"{first.name} and {second.name} answered different sides; evaluate both")
    subject = Subject(f"{first.name}, else {second.name}")
    merged = [recounted(one, _merged(one, others[one.side], floor)) for one in first.reports]
    reports = [msgspec.structs.replace(one, subject=subject) for one in merged]
    return Option(reports, first.asks + second.asks, floor)


def choose(options: Sequence[Option], settings: GateSettings) -> Choice:
    """One of the options, of which the first is the simplest.

    Raises GateError where they did not answer the same rows.
    """
    _require_same_rows(options)
    found = _compared(options, settings)
    beaten = {_worse(one) for one in found if one.p <= settings.alpha}
    chosen = next(option for option in options if option.name not in beaten)
    return Choice(
        chosen=chosen.name,
        asks=chosen.asks,
        sentence=_sentence(chosen, found, settings),
        comparisons=found,
        routes=_routes(chosen),
    )


# ------------------------------------------------------------------ in turn


def _merged(first: Report, second: Report, floor: float | None) -> list[Answered]:
    others = {answer.row: answer for answer in second.answers}
    return [
        _second(one, others[one.row]) if _falls_through(one, floor) and one.row in others else one
        for one in first.answers
    ]


def _falls_through(answer: Answered, floor: float | None) -> bool:
    if not answer.score.json_valid:
        return True
    is_unsure = floor is not None and answer.confidence is not None and answer.confidence < floor
    return is_unsure and bool(answer.calls)


def _second(first: Answered, second: Answered) -> Answered:
    """The second's answer, for which the first one's had to be waited for and paid."""
    return msgspec.structs.replace(
        second,
        seconds=first.seconds + second.seconds,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
    )


# ------------------------------------------------------------------ comparing


def _require_same_rows(options: Sequence[Option]) -> None:
    first = {answer.row for answer in answers(options[0].reports)}
    for option in options[1:]:
        if {answer.row for answer in answers(option.reports)} != first:
            raise GateError(
                f"{option.name} and {options[0].name} answered different rows; evaluate all options"
                " on the same sides of one dataset, with the same `most`"
            )


def _compared(options: Sequence[Option], settings: GateSettings) -> list[Comparison]:
    duels = list(combinations(options, 2))
    pairs = [
        pair(answers(second.reports), answers(first.reports), right_by(settings))
        for first, second in duels
    ]
    adjusted = holm([one.p_value() for one in pairs])
    return [
        Comparison(first=first.name, second=second.name, n=one.n, gain=one.gain, p=p)
        for (first, second), one, p in zip(duels, pairs, adjusted, strict=True)
    ]


def _worse(one: Comparison) -> str:
    return one.first if one.gain > 0 else one.second


# ------------------------------------------------------------------ in words


def _sentence(chosen: Option, found: Sequence[Comparison], settings: GateSettings) -> str:
    own = [one for one in found if chosen.name in (one.first, one.second)]
    said = ", ".join(_told(chosen.name, one) for one in own)
    shown = [one for one in own if one.p <= settings.alpha]
    if len(shown) == len(own):
        return f"{chosen.name} is right more often than every other: {said}."
    return f"{chosen.name} is the simplest that no other is shown to surpass: {said}."


def _told(name: str, one: Comparison) -> str:
    other, gain = (one.first, one.gain) if one.second == name else (one.second, 0.0 - one.gain)
    return f"{100 * gain:+.1f} points beside {other} (p = {one.p:.2g}, {one.n} items)"


def _routes(chosen: Option) -> str:
    """A plan of two local backends, whose names a person chooses."""
    if len(chosen.asks) == 1:
        return ""
    floor = "" if chosen.floor is None else f", floor: {chosen.floor:g}"
    first, second = chosen.asks
    return (
        "backends:\n"
        f"  local: {{…}} # {first} is the domain's champion\n"
        f"  second: {{…}} # as `local`, with `adapters` of its own, where {second} is\n"
        f"domains:\n  DOMAIN: {{plan: [local, second, …]{floor}}}\n"
    )
