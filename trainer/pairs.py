"""Two subjects' answers to the same rows, paired: what only one of them got right.

Rows of one conversation are alike. Their pairs count as the number of independent ones that they
are worth (`evidence.clusters`), and the test flips whole conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from proxy.protocol.evidence.clusters import clustered, effective, sign_flip
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.paired import NonInferiority, difference, non_inferior
from trainer.figures import Answered

Right = Callable[[Answered], bool]


class Pairs(msgspec.Struct, frozen=True):
    """n pairs, of which only the first or only the second is right."""

    n: int
    only_first: int
    only_second: int
    sums: tuple[int, ...] = ()
    """Of each conversation: only the first right, less only the second."""
    worth: float = 1.0
    """Independent pairs that one of these is worth, 0 to 1."""

    @property
    def gain(self) -> float:
        """The first's share of right answers less the second's; 0 where there are no pairs."""
        return (self.only_first - self.only_second) / self.n if self.n else 0.0

    @property
    def discordance(self) -> float:
        """Share of pairs of which one side alone is right."""
        return (self.only_first + self.only_second) / self.n if self.n else 0.0

    def interval(self, certainty: float = 0.95) -> Interval:
        return difference(*self._counts(1.0), certainty)

    def p_value(self) -> float:
        """Exact, two-sided: that both are right equally often."""
        return sign_flip(self.sums)

    def within(self, margin: float, alpha: float, times: float = 1.0) -> NonInferiority:
        """Whether the first is at most `margin` worse; with `times` as many pairs, else alike."""
        return non_inferior(*self._counts(times), margin, alpha)

    def _counts(self, times: float) -> tuple[float, float, float]:
        factor = self.worth * times
        return self.only_first * factor, self.only_second * factor, self.n * factor


def pair(first: Iterable[Answered], second: Iterable[Answered], right: Right) -> Pairs:
    """The pairs of the rows that both answered."""
    theirs = {answer.row: answer for answer in second}
    both = [(answer, theirs[answer.row]) for answer in first if answer.row in theirs]
    gains = [int(right(one)) - int(right(other)) for one, other in both]
    groups = [one.group or one.row for one, _ in both]
    of = clustered(gains, groups)
    return Pairs(
        n=len(gains),
        only_first=gains.count(1),
        only_second=gains.count(-1),
        sums=tuple(round(one) for one in of.sums),
        worth=effective(of) / len(gains) if gains else 1.0,
    )


def sliced(answers: Sequence[Answered]) -> dict[str, list[Answered]]:
    """Answers by tool and by category, each under a name that a person understands."""
    found: dict[str, list[Answered]] = {}
    for answer in answers:
        for kind, name in (("tool", answer.tool), ("category", answer.category)):
            if name:
                found.setdefault(f"{kind} {name}", []).append(answer)
    return found
