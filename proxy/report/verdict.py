"""Figures → a verdict that may be asked for every day.

It rests on the always-valid intervals: however often somebody looks, and stops when they like what
they see, a wrong verdict has a chance of at most 5 %.

    better      the candidate is right more often
    not_worse   it is worse by less than the margin, if at all
    worse       it is right less often, and not shown to be within the margin
    undecided   the pairs do not show it; how many more would is told

Without demonstrations nobody knows who is right; but where two answers agree, both are or neither
is. So the candidate cannot be worse by more than the share of disagreement.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.evidence import power, sequential
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.sequential import Tally
from proxy.protocol.page.words import count, roughly, told
from proxy.report.estimates import Observed

Word: TypeAlias = Literal["better", "not_worse", "worse", "undecided"]
EXIT: dict[Word, int] = {"better": 0, "not_worse": 10, "worse": 20, "undecided": 30}
"""Exit status of the command; 1 and 2 are errors, as everywhere."""
CERTAINTY = 0.95


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the pairs show."""

    word: Word
    basis: Literal["demonstrations", "agreement", "nothing"]
    sentence: str
    n: int
    """Pairs that it rests on."""
    interval: Interval | None
    """Always valid; of the difference of accuracies, or of the agreement."""
    certainty: float
    """Of the interval."""
    margin: float
    more: float | None = None
    """About so many more pairs would decide, if they are like those so far; None where it is
    decided, or where pairs like these never will."""


class Names(msgspec.Struct, frozen=True):
    """Who is compared."""

    candidate: str
    baseline: str


def verdict(differences: Observed, agreeing: Observed, margin: float, names: Names) -> Verdict:
    """What demonstrations show; where they leave it open, what agreement shows.

    Where both are asked, each is asked at half the error.
    """
    if not agreeing.values and not differences.values:
        return _empty(margin, names)
    asked_twice = bool(agreeing.values and differences.values)
    certainty = 1 - (1 - CERTAINTY) / (2 if asked_twice else 1)
    found = [
        judge(seen, margin, certainty, names)
        for seen, judge in ((differences, _by_right), (agreeing, _by_agreement))
        if seen.values
    ]
    return next((one for one in found if one.word != "undecided"), found[0])


def _empty(margin: float, names: Names) -> Verdict:
    sentence = f"Not decidable: no pair of {names.candidate} and {names.baseline} is recorded."
    return Verdict(
        word="undecided",
        basis="nothing",
        sentence=sentence,
        n=0,
        interval=None,
        certainty=CERTAINTY,
        margin=margin,
    )


# ---------------------------------------------------------------- by demonstrations


def _by_right(seen: Observed, margin: float, certainty: float, names: Names) -> Verdict:
    tally = seen.tally(-1, 1)
    found = sequential.interval(tally, certainty)
    word = _word(found, margin)
    more = None if word != "undecided" else _more(seen, tally, certainty, margin, _word)
    return Verdict(
        word=word,
        basis="demonstrations",
        sentence=_told_right(word, found, seen, margin, more, names),
        n=len(seen.values),
        interval=found,
        certainty=certainty,
        margin=margin,
        more=more,
    )


def _word(of: Interval, margin: float) -> Word:
    if of.low > 0:
        return "better"
    if of.low > -margin:
        return "not_worse"
    return "worse" if of.high < 0 else "undecided"


def _told_right(
    word: Word, found: Interval, seen: Observed, margin: float, more: float | None, names: Names
) -> str:
    n, tested = len(seen.values), f"in {count(len(seen.values))} pairs with a known right answer"
    between = f"between {told(found.low, 'points')} and {told(found.high, 'points')}"
    match word:
        case "better":
            return f"{names.candidate} is better than {names.baseline}: {between} {tested}."
        case "not_worse":
            allowed = told(margin, "points").removeprefix("+")
            return (
                f"{names.candidate} is not worse than {names.baseline} by {allowed} or more:"
                f" {between} {tested}."
            )
        case "worse":
            return f"{names.candidate} is worse than {names.baseline}: {between} {tested}."
        case "undecided":
            return (
                f"Not decidable with n={count(n)} pairs that have a known right answer: the"
                f" difference of {names.candidate} to {names.baseline} is {between}.{_needed(more)}"
            )


# ---------------------------------------------------------------- by agreement


def _by_agreement(seen: Observed, margin: float, certainty: float, names: Names) -> Verdict:
    tally = seen.tally(0, 1)
    found = sequential.interval(tally, certainty)
    word = _agreed(found, margin)
    more = None if word != "undecided" else _more(seen, tally, certainty, margin, _agreed)
    return Verdict(
        word=word,
        basis="agreement",
        sentence=_told_agreement(word, found, seen, margin, more, names),
        n=len(seen.values),
        interval=found,
        certainty=certainty,
        margin=margin,
        more=more,
    )


def _agreed(of: Interval, margin: float) -> Word:
    return "not_worse" if of.low > 1 - margin else "undecided"


def _told_agreement(
    word: Word, found: Interval, seen: Observed, margin: float, more: float | None, names: Names
) -> str:
    n, low = count(len(seen.values)), told(found.low, "share")
    who, allowed = f"{names.candidate} and {names.baseline}", told(margin, "points")[1:]
    if word == "not_worse":
        return (
            f"{names.candidate} is not worse than {names.baseline} by {allowed} or more: they agree"
            f" in at least {low} of requests (n={n} pairs)."
        )
    start = f"Not decidable with n={n} pairs: {who} agree in {_within(found)} of requests"
    if more is not None:
        return f"{start}.{_needed(more)}"
    discordance = 1 - seen.clusters.mean
    wanted = roughly(power.pairs_needed(discordance, margin))
    return (
        f"{start}, which leaves open by more than {allowed} who is right when they differ. That"
        f" takes right answers given as feedback: for {wanted} pairs or more, if both are right"
        " equally often."
    )


def _within(of: Interval) -> str:
    return f"{told(of.low, 'share')} to {told(of.high, 'share')}"


# ---------------------------------------------------------------- how many more


def _more(
    seen: Observed,
    tally: Tally,
    certainty: float,
    margin: float,
    word: Callable[[Interval, float], Word],
) -> float | None:
    def decides(times: float) -> bool:
        return word(sequential.interval(tally.times(times), certainty), margin) != "undecided"

    times = power.times_needed(decides)
    return None if times == inf else round((times - 1) * len(seen.values))


def _needed(more: float | None) -> str:
    if more is None:
        return " More pairs like these will not decide it."
    return f" If it goes on like this, {roughly(more)} more pairs are needed."
