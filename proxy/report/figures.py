"""Pairs → figures: agreement, accuracy, validity, calls, times and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from proxy.protocol.evidence.clusters import clustered, sign_flip
from proxy.report import estimates
from proxy.report.estimates import Estimate, Observed
from proxy.report.pairs import Pair, Side

_THOUSAND = 1000


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides held against demonstrations of the right answer."""

    baseline: Estimate
    candidate: Estimate
    only_baseline: int
    only_candidate: int
    both: int
    neither: int
    difference: Estimate
    """Candidate less baseline."""
    p: float
    """Exact, two-sided, that both are right equally often: McNemar's test; where conversations
    have several pairs, the same with the signs of whole conversations."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that pairs show."""

    pairs: int
    conversations: int
    kinds: dict[str, int]
    """Pairs by how the answers agree, or do not (protocol.agreement)."""
    agreement: Estimate
    arguments: Estimate
    """Share of the arguments that agrees, over pairs in which both sides call."""
    accuracy: Accuracy | None
    validity: list[Estimate]
    calls: list[Estimate]
    times: list[Estimate]
    costs: list[Estimate]


def figures(pairs: Sequence[Pair]) -> Figures:
    """The figures of some pairs."""
    return Figures(
        pairs=len(pairs),
        conversations=len({pair.conversation for pair in pairs}),
        kinds=dict(Counter(map(kind, pairs)).most_common()),
        agreement=estimates.share("agreement", agreeing(pairs)),
        arguments=estimates.mean_share("arguments that agree", _arguments(pairs)),
        accuracy=accuracy(pairs),
        validity=[
            estimates.share(f"{side}: valid answers", _of(pairs, side, _is_valid))
            for side in ("baseline", "candidate")
        ],
        calls=_calls(pairs),
        times=_times(pairs),
        costs=_costs(pairs),
    )


def kind(pair: Pair) -> str:
    """How the answers agree or do not, `no_answer` where the candidate gave none."""
    if not pair.baseline.answered:
        return "no_baseline"
    return pair.agreement.kind if pair.candidate.answered else "no_answer"


def agreeing(pairs: Sequence[Pair]) -> Observed:
    """1 where the sides agree, 0 where they do not; a candidate without an answer does not."""
    compared = [p for p in pairs if kind(p) not in ("no_baseline", "not_comparable")]
    return _observed(compared, lambda pair: pair.candidate.answered and pair.agreement.agrees)


def differences(pairs: Sequence[Pair]) -> Observed:
    """1 where only the candidate is right, -1 where only the baseline is, 0 else."""
    judged = [pair for pair in pairs if pair.right is not None]
    return _observed(judged, lambda pair: _hit(pair, 1) - _hit(pair, 0))


def _hit(pair: Pair, side: int) -> bool:
    return pair.right is not None and pair.right[side]


def _observed(pairs: Sequence[Pair], value: Callable[[Pair], float]) -> Observed:
    return Observed([float(value(p)) for p in pairs], [p.conversation for p in pairs])


def _arguments(pairs: Sequence[Pair]) -> Observed:
    both = [p for p in pairs if p.baseline.called and p.candidate.called]
    return _observed(both, lambda pair: pair.agreement.score)


def accuracy(pairs: Sequence[Pair]) -> Accuracy | None:
    """None where no pair has a demonstration."""
    judged = [pair for pair in pairs if pair.right is not None]
    if not judged:
        return None
    counts = Counter(pair.right for pair in judged)
    signs = differences(judged)
    sums = clustered(signs.values, signs.conversations).sums
    return Accuracy(
        baseline=estimates.share("baseline", _observed(judged, lambda pair: _hit(pair, 0))),
        candidate=estimates.share("candidate", _observed(judged, lambda pair: _hit(pair, 1))),
        only_baseline=counts[(True, False)],
        only_candidate=counts[(False, True)],
        both=counts[(True, True)],
        neither=counts[(False, False)],
        difference=estimates.difference("candidate less baseline", signs),
        p=sign_flip([int(one) for one in sums]),
    )


def _side(pair: Pair, side: str) -> Side:
    return pair.candidate if side == "candidate" else pair.baseline


def _is_valid(side: Side) -> bool:
    return side.valid


def _of(pairs: Sequence[Pair], side: str, value: Callable[[Side], bool]) -> Observed:
    return _observed(pairs, lambda pair: value(_side(pair, side)))


def _calls(pairs: Sequence[Pair]) -> list[Estimate]:
    """Calls where the baseline calls nothing, and the reverse; where tools were offered."""
    offered = [p for p in pairs if p.tools_offered and p.baseline.answered and p.candidate.answered]
    silent = [pair for pair in offered if not pair.baseline.called]
    calling = [pair for pair in offered if pair.baseline.called]
    return [
        estimates.share(
            "false calls", _observed(silent, lambda pair: pair.candidate.called), unwanted=True
        ),
        estimates.share(
            "missed calls",
            _observed(calling, lambda pair: not pair.candidate.called),
            unwanted=True,
        ),
    ]


def _times(pairs: Sequence[Pair]) -> list[Estimate]:
    """Seconds to the whole answer, over pairs in which both sides gave one."""
    both = [pair for pair in pairs if pair.baseline.answered and pair.candidate.answered]
    conversations = [pair.conversation for pair in both]
    baseline = Observed([pair.baseline.total_s for pair in both], conversations)
    candidate = Observed([pair.candidate.total_s for pair in both], conversations)
    apart = _observed(both, lambda pair: pair.candidate.total_s - pair.baseline.total_s)
    return [
        *_quantiles("baseline", baseline),
        *_quantiles("candidate", candidate),
        estimates.quantile("candidate less baseline, median of the pairs", apart, 0.5),
    ]


def _quantiles(side: str, seen: Observed) -> list[Estimate]:
    return [
        estimates.quantile(f"{side}: median", seen, 0.5),
        estimates.quantile(f"{side}: 95 % are faster than", seen, 0.95),
    ]


def _costs(pairs: Sequence[Pair]) -> list[Estimate]:
    """Dollars for 1,000 requests, over pairs whose side has a known price."""
    return [_cost(pairs, "baseline"), _cost(pairs, "candidate")]


def _cost(pairs: Sequence[Pair], side: str) -> Estimate:
    known = [pair for pair in pairs if _side(pair, side).cost_usd is not None]
    seen = _observed(known, lambda pair: _side(pair, side).cost_usd or 0.0)
    return estimates.mean(f"{side}: 1,000 requests", seen, times=_THOUSAND)
