"""Whether a judge's word counts: its biases, and its agreement with people.

Two kinds of probes show biases without anyone knowing the right answer: an answer beside itself
(whoever prefers one of the two goes by position) and an answer beside itself with padding that says
nothing (whoever prefers that goes by length). Agreement with people is Cohen's kappa with quadratic
weights over the levels 1 to 5.
Sources: J. Cohen, "Weighted kappa" (1968); Zheng et al. (2023) for the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy.stats import binomtest

from trainer.errors import JudgeError
from trainer.figures import Figure
from trainer.scorers.judge import ASPECTS, Contest, Judge, Judgement

LEAST_KAPPA = 0.6
"""From here on agreement is called substantial (Landis and Koch, 1977)."""
LEAST_RATED = 50
"""Answers that people must have rated. Chosen: kappa's interval is then some 0.2 wide."""
ALPHA = 0.01
"""Chance of calling an unbiased judge biased, for each of the two biases."""
_PADDING = (
    " To put it differently, and to be thorough: the above is what there is to say, and it has been"
    " said in full. In summary, as was explained in detail above, this is the answer."
)


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """One person's level for one aspect of one answer."""

    item: str
    aspect: str
    level: int
    by: str


class Bias(msgspec.Struct, frozen=True, kw_only=True):
    """How often something preferred that says nothing about the answer."""

    preferred: Figure
    """Of the probes in which the judge chose at all."""
    probes: int
    p: float
    """That a judge without the bias chooses so one-sidedly."""

    @property
    def shown(self) -> bool:
        return self.p <= ALPHA


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a judge, and why it does not count; empty reasons: it does."""

    snapshot: str
    position: Bias
    length: Bias
    consistent: Figure
    """Real contests in which both orders agree."""
    kappa: float | None
    rated: int
    reasons: list[str]

    @property
    def counts(self) -> bool:
        return not self.reasons


async def examine(
    judge: Judge,
    judgements: Sequence[Judgement],
    ratings: Sequence[Rating],
) -> Trust:
    """Probe the judge with the first answers of its own contests, and compare it with people."""
    probes = [one.contest for one in judgements]
    same = [await judge.judge(msgspec.structs.replace(c, second=c.first)) for c in probes]
    padded = [
        await judge.judge(msgspec.structs.replace(c, second=c.first + _PADDING * 3)) for c in probes
    ]
    agreeing, rated = agreement(judgements, ratings)
    found = Trust(
        snapshot=judge.snapshot,
        position=_position([one for one in [*same, *judgements] if one]),
        length=_length([one for one in padded if one]),
        consistent=Figure.of(sum(one.consistent for one in judgements), len(judgements)),
        kappa=agreeing,
        rated=rated,
        reasons=[],
    )
    return msgspec.structs.replace(found, reasons=_reasons(found))


def _position(judgements: Sequence[Judgement]) -> Bias:
    """How often the answer that stands first is preferred, over both orders.

    Orders in which both answers stand first once would balance, whatever the answers are worth.
    """
    said = [side for one in judgements for side in (one.given.better, one.exchanged.better)]
    return _bias(said.count("first"), said.count("second"), len(said))


def _length(padded: Sequence[Judgement]) -> Bias:
    """How often the padded answer is preferred in both orders; it stands second."""
    better = [one.better for one in padded]
    return _bias(better.count("second"), better.count("first"), len(better))


def _bias(so: int, otherwise: int, probes: int) -> Bias:
    chosen = so + otherwise
    p = float(binomtest(so, chosen, alternative="two-sided").pvalue) if chosen else 1.0
    # One who nearly always calls it a tie, as is right, is not biased for the few other times.
    fair = chosen < 0.1 * probes
    return Bias(preferred=Figure.of(so, chosen), probes=probes, p=1.0 if fair else p)


def _reasons(found: Trust) -> list[str]:
    reasons = []
    if found.position.shown:
        reasons.append(
            f"it goes by position: the answer shown first wins {found.position.preferred}"
        )
    if found.length.shown:
        reasons.append(f"it goes by length: padding without content wins {found.length.preferred}")
    if found.rated < LEAST_RATED or found.kappa is None:
        reasons.append(f"people rated {found.rated} of its answers; {LEAST_RATED} are needed")
    elif found.kappa < LEAST_KAPPA:
        reasons.append(
            f"it agrees too little with people: weighted kappa {found.kappa:.2f}, n={found.rated};"
            f" {LEAST_KAPPA} is needed"
        )
    return reasons


# ------------------------------------------------------------------ people


def item(contest_id: str, side: str) -> str:
    """The name of an answer in ratings."""
    return f"{contest_id}/{side}"


def agreement(
    judgements: Sequence[Judgement], ratings: Sequence[Rating]
) -> tuple[float | None, int]:
    """(weighted kappa of people's and the judge's levels, answers rated); None where none is."""
    levels = {
        (item(one.contest.id, side), aspect): round(one.level(aspect, side))
        for one in judgements
        for side in ("first", "second")
        for aspect in ASPECTS
    }
    both = [(r.level, levels[r.item, r.aspect]) for r in ratings if (r.item, r.aspect) in levels]
    rated = {r.item for r in ratings if (r.item, r.aspect) in levels}
    return (weighted_kappa(both) if both else None), len(rated)


def weighted_kappa(pairs: Sequence[tuple[int, int]]) -> float:
    """Cohen's kappa, quadratic weights, levels 1 to 5; 1.0 where both sides say one level only."""
    table = np.zeros((5, 5))
    for one, other in pairs:
        table[one - 1, other - 1] += 1
    grid = np.arange(5)
    weights = (grid[:, None] - grid[None, :]) ** 2
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    apart = float((weights * expected).sum())
    return 1.0 - float((weights * table).sum()) / apart if apart else 1.0


def read_ratings(path: Path) -> list[Rating]:
    """The ratings in a file; raises JudgeError with the line of one that is broken."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise JudgeError(
            f"{path}: {error.strerror}; `headrace-trainer judge rate` makes it"
        ) from error
    return [_rating(path, number, line) for number, line in enumerate(lines, start=1)]


def _rating(path: Path, number: int, line: bytes) -> Rating:
    try:
        rating = msgspec.json.decode(line, type=Rating)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JudgeError(f"{path}:{number}: {error}") from error
    if rating.aspect not in ASPECTS or not 1 <= rating.level <= 5:
        raise JudgeError(f"{path}:{number}: no such aspect, or no level from 1 to 5")
    return rating


def contests(
    first: dict[str, str], second: dict[str, str], asked: dict[str, tuple[str, str]]
) -> list[Contest]:
    """Contests of two subjects' answers, by question id; `asked` is (question, reference)."""
    return [
        Contest(id=id, question=q, reference=r, first=first[id], second=second[id])
        for id, (q, r) in asked.items()
        if id in first and id in second
    ]
