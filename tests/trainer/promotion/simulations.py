"""What the stop rules do on traffic of known quality: `make promotion-figures` prints it.

A promotion is simulated conversation by conversation: chance puts it on a side, each rule sees it
fail or not, and everybody looks after each. All stages last as long as they may.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.protocol.evidence import sequential
from trainer.promotion.settings import PromotionSettings

SETTINGS = PromotionSettings()
_MOST = 800
"""Failed conversations of a stage that are told apart: at rates up to 0.3 there are fewer."""


class Simulated(NamedTuple):
    """So many promotions."""

    stopped: float
    """Share of them that were rolled back."""
    candidates: float
    """Conversations that the candidate had answered by then; the median of those rolled back."""
    all: float
    """Conversations of the domain by then, likewise."""
    largest: float
    """Conversations of the candidate in 95 % of those rolled back, at most."""


@cache
def boundary(share: float, alpha: float, most: int) -> NDArray[np.int64]:
    """For each number of failed conversations, of how many the candidate's stop it (most + 1,)."""
    found, needed = [1], 1
    for failed in range(1, most + 1):
        while needed <= failed and not _stops(needed, failed, share, alpha):
            needed += 1
        found.append(needed)
    return np.array(found)


def _stops(candidates: int, failed: int, share: float, alpha: float) -> bool:
    return sequential.p_above(sequential.share(candidates, failed), share) < alpha


def simulate(
    candidate: float, champion: float, *, runs: int, seed: int, rules: int = 1
) -> Simulated:
    """Promotions whose candidate fails in this share of its conversations, the champion in that;
    `rules` see independent failures of these shares, the others none."""
    random = np.random.default_rng(seed)
    ends = [_promotion(candidate, champion, rules, random) for _ in range(runs)]
    stops = [end for end in ends if end is not None]
    ours, whole = [c for c, _ in stops] or [0], [n for _, n in stops] or [0]
    return Simulated(
        len(stops) / runs,
        float(np.median(ours)),
        float(np.median(whole)),
        float(np.quantile(ours, 0.95)),
    )


class Unseen(NamedTuple):
    """So many shadow stages."""

    stopped: float
    """Share of them that ended the promotion."""
    pairs: float
    """Conversations by then; the median of those that did."""


def simulate_unseen(
    candidate: float, champion: float, *, runs: int, seed: int, rules: int = 1
) -> Unseen:
    """Shadow stages in which each side fails in these shares of the conversations, whatever the
    other does; by independent `rules`."""
    random = np.random.default_rng(seed)
    shape = (runs, rules, SETTINGS.shadow_pairs)
    ours, theirs = random.random(shape) < candidate, random.random(shape) < champion
    only_ours = np.cumsum(ours & ~theirs, axis=-1)
    differing = np.cumsum(ours ^ theirs, axis=-1)
    needed = boundary(0.5, SETTINGS.alpha_of_a_test, SETTINGS.shadow_pairs)
    stops = (only_ours >= needed[differing]) & (differing > 0)
    ends = np.where(stops.any(-1), stops.argmax(-1) + 1, SETTINGS.shadow_pairs + 1).min(-1)
    stopped = ends <= SETTINGS.shadow_pairs
    return Unseen(float(stopped.mean()), float(np.median(ends[stopped])) if stopped.any() else 0.0)


def simulate_limited(
    candidate: float, limit: float, *, runs: int, seed: int, rules: int = 1
) -> Simulated:
    """Promotions of a first adapter that fails in this share of its conversations, where `limit` is
    allowed, by independent `rules`; `all` counts its own conversations, too."""
    random, most = np.random.default_rng(seed), SETTINGS.stages[0].max_conversations
    shape = (runs, len(SETTINGS.stages), rules, most)
    failed = np.cumsum(random.random(shape) < candidate, axis=-1)
    stops = failed >= boundary(limit, SETTINGS.alpha_of_a_test, most)[1:]
    # After which conversation of its stage the first rule stops, and of the whole promotion.
    ends = np.where(stops.any(-1), stops.argmax(-1) + 1, most + 1).min(-1)
    stopped = (ends <= most).any(-1)
    stage = (ends <= most).argmax(-1)
    ours = (stage * most + ends[np.arange(runs), stage])[stopped]
    median = float(np.median(ours)) if len(ours) else 0.0
    largest = float(np.quantile(ours, 0.95)) if len(ours) else 0.0
    return Simulated(float(stopped.mean()), median, median, largest)


def _promotion(
    candidate: float, champion: float, rules: int, random: np.random.Generator
) -> tuple[int, int] | None:
    """Conversations of the candidate and of all when it is rolled back; None when it never is."""
    ours = whole = 0
    for stage in SETTINGS.stages:
        mine = _drawn(stage.share, stage.max_conversations, random)
        rates = np.where(mine, candidate, champion)
        at = min(_stop(mine, rates, stage.share, random) for _ in range(rules))
        if at < len(mine):
            return ours + int(mine[: at + 1].sum()), whole + at + 1
        ours, whole = ours + int(mine.sum()), whole + len(mine)
    return None


def _drawn(share: float, most: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which conversations are the candidate's, until it has had so many."""
    apart = random.geometric(share, most)
    mine = np.zeros(apart.sum(), dtype=np.bool_)
    mine[np.cumsum(apart) - 1] = True
    return mine


def _stop(
    mine: NDArray[np.bool_],
    rates: NDArray[np.float64],
    share: float,
    random: np.random.Generator,
) -> int:
    """After which conversation a rule stops; their number where it does not."""
    failed = random.random(len(mine)) < rates
    count = np.minimum(np.cumsum(failed), _MOST)
    needed = boundary(share, SETTINGS.alpha_of_a_test, _MOST)[count]
    stops = np.cumsum(failed & mine) >= needed
    return int(stops.argmax()) if stops.any() else len(mine)


def main() -> None:
    print("As good as the champion (6 rules, all stages): share rolled back")
    for rate in (0.02, 0.1, 0.3):
        found = simulate(rate, rate, runs=4000, seed=1, rules=6)
        print(f"  both fail in {rate:4.0%}: {found.stopped:.2%}")
    print("Worse, by one rule: share rolled back; conversations of the candidate, and of all")
    for ours, theirs in (
        (1.0, 0.02),
        (0.5, 0.02),
        (0.3, 0.02),
        (0.2, 0.02),
        (0.1, 0.02),
        (0.5, 0.1),
        (0.3, 0.1),
        (0.2, 0.1),
    ):
        found = simulate(ours, theirs, runs=2000, seed=2)
        print(
            f"  {ours:4.0%} against {theirs:4.0%}: {found.stopped:6.1%};"
            f" median {found.candidates:.0f} (95 %: {found.largest:.0f}) of {found.all:.0f}"
        )
    print("Out of the clients' sight: share sent back; conversations by then")
    for ours, theirs, rules in (
        (0.1, 0.1, 2),
        (0.3, 0.3, 2),
        (1.0, 0.02, 1),
        (0.7, 0.02, 1),
        (0.5, 0.02, 1),
        (0.3, 0.02, 1),
        (0.5, 0.1, 1),
    ):
        unseen = simulate_unseen(ours, theirs, runs=20_000, seed=3, rules=rules)
        print(f"  {ours:4.0%} against {theirs:4.0%}: {unseen.stopped:6.1%}; {unseen.pairs:.0f}")
    print("First adapters: share rolled back; conversations of theirs by then")
    for limit in (0.03, 0.1, 0.25):
        at = simulate_limited(limit, limit, runs=4000, seed=4, rules=3)
        print(f"  at the limit of {limit:4.0%}, by three rules: {at.stopped:6.2%}")
        for rate in (2 * limit, 0.5, 1.0):
            found = simulate_limited(rate, limit, runs=4000, seed=5)
            told = f"{found.stopped:6.1%}; median {found.candidates:.0f} ({found.largest:.0f})"
            print(f"  {rate:4.0%} where {limit:4.0%} are allowed: {told}")


if __name__ == "__main__":
    main()
