"""Two backends compared, as one report: for people (text, html) and for machines (JSON)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from proxy.protocol.evidence import sequential
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.exchange import Answer
from proxy.report import figures
from proxy.report.figures import Figures, kind
from proxy.report.pairs import Contest, LeftOut, Pair
from proxy.report.slices import Slice, slices
from proxy.report.trials import Trial
from proxy.report.verdict import Names, Verdict, verdict

VERSION = 1
_OF_A_KIND = 4
"""Examples of each kind of disagreement: the latest ones."""
_LOOKS = 40
"""Points of the course."""
_AGREEING = ("same", "both_abstain")


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A pair whose answers do not agree."""

    exchange: str
    kind: str
    question: str
    baseline: str
    candidate: str


class Look(msgspec.Struct, frozen=True):
    """What somebody would have seen who looked after so many pairs."""

    n: int
    value: float
    interval: Interval


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    since: float
    """Seconds since the epoch, as the next one."""
    until: float
    domain: str | None = None
    tenant: str | None = None
    margin: float = 0.03


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that the record shows of two backends."""

    version: int = VERSION
    contest: Contest
    scope: Scope
    verdict: Verdict
    figures: Figures
    left_out: dict[LeftOut, int]
    slices: list[Slice]
    course: list[Look]
    """The figure of the verdict, in the order in which conversations began."""
    trials: list[Trial]
    examples: list[Example]


def report(
    pairs: Iterable[Pair],
    contest: Contest,
    scope: Scope,
    left_out: Counter[LeftOut],
    trials: Sequence[Trial] = (),
) -> Report:
    """The report of pairs, in the order of their requests."""
    known = list(pairs)
    found = verdict(
        figures.differences(known),
        figures.agreeing(known),
        scope.margin,
        Names(contest.candidate, contest.baseline),
    )
    return Report(
        contest=contest,
        scope=scope,
        verdict=found,
        figures=figures.figures(known),
        left_out=dict(left_out),
        slices=slices(known),
        course=_course(known, found),
        trials=list(trials),
        examples=_examples(known),
    )


def _course(pairs: Sequence[Pair], found: Verdict) -> list[Look]:
    by_right = found.basis == "demonstrations"
    seen = figures.differences(pairs) if by_right else figures.agreeing(pairs)
    low = -1 if by_right else 0
    total = len(seen.values)
    looks = sorted(
        {max(1, total * step // _LOOKS) for step in range(1, _LOOKS + 1)} if total else ()
    )
    course = []
    for n in looks:
        until = msgspec.structs.replace(
            seen, values=seen.values[:n], conversations=seen.conversations[:n]
        )
        course.append(
            Look(n, until.clusters.mean, sequential.interval(until.tally(low, 1), found.certainty))
        )
    return course


def _examples(pairs: Sequence[Pair]) -> list[Example]:
    kinds: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in reversed(pairs):
        if kind(pair) not in _AGREEING and len(kinds[kind(pair)]) < _OF_A_KIND:
            kinds[kind(pair)].append(pair)
    return [
        Example(
            exchange=pair.exchange,
            kind=name,
            question=pair.question,
            baseline=_said(pair.baseline.answer),
            candidate=_said(pair.candidate.answer),
        )
        for name, chosen in kinds.items()
        for pair in chosen
    ]


def _said(answer: Answer) -> str:
    """An answer as text: its calls, one a line, or what it says."""
    calls = [f"{call.function.name}({call.function.arguments})" for call in answer.tool_calls]
    return "\n".join(calls) or answer.text or answer.refusal or "(no answer)"
