"""The gate's rules, each a function of the measured answers: what it found, in which numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.evidence import bootstrap
from proxy.protocol.evidence.intervals import lower, upper
from proxy.protocol.evidence.multiple import holm
from proxy.protocol.evidence.power import times_needed
from proxy.protocol.openai import Usage
from proxy.protocol.prices import PRICES, price_at
from trainer.evaluate import Report
from trainer.figures import Answered
from trainer.pairs import Pairs, pair, sliced
from trainer.recipe import GateSettings

State: TypeAlias = Literal["holds", "fails", "open", "no reason"]
STATES: tuple[State, ...] = ("holds", "fails", "open", "no reason")


class Count(msgspec.Struct, frozen=True):
    """`hits` of `n` of something that must not happen."""

    hits: int
    n: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: the same rows, answered by up to four."""

    candidate: list[Report]
    champion: list[Report] = []
    """Empty: the domain has none yet."""
    cloud: list[Report] = []
    base: list[Report] = []
    """For people; no rule asks for it."""
    parity: Count | None = None
    """Prompts whose token ids differ between training and serving; None: not measured."""
    canaries: Count | None = None
    """Planted personal data that came out; None: not asked for."""
    sealed: bool = False
    must_go: bool = False
    """Whether the champion learnt from what was erased: whoever is not worse takes its place."""

    @property
    def name(self) -> str:
        return str(self.candidate[0].subject)

    @property
    def dataset(self) -> str:
        return self.candidate[0].dataset


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule found."""

    name: str
    state: State
    numbers: dict[str, float]
    sentence: str
    more: int | None = None
    """Items that would decide an open rule, at the present rates; None: not open, or no number of
    them would."""


def answers(reports: Sequence[Report]) -> list[Answered]:
    return [answer for report in reports for answer in report.answers]


def cloud_pairs(evidence: Evidence, settings: GateSettings) -> Pairs | None:
    return _pairs(evidence.candidate, evidence.cloud, settings) if evidence.cloud else None


def champion_pairs(evidence: Evidence, settings: GateSettings) -> Pairs | None:
    return _pairs(evidence.candidate, evidence.champion, settings) if evidence.champion else None


def praise(found: Sequence[Rule]) -> str:
    """What speaks for a candidate that is refused all the same, where that is a surprise."""
    by = {rule.name: rule for rule in found}
    change = by.get("worth the change")
    if change is None or change.state != "holds" or change.numbers.get("gain", 0) <= 0:
        return ""
    return (
        f"It is right more often than the champion ({_points(change.numbers['gain'])}), and that"
        " does not make up for it."
    )


# ------------------------------------------------------------------ right answers


def not_worse_than_the_cloud(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """Non-inferior to the cloud by the margin."""
    margin = settings.margin
    if margin is None:
        return None
    pairs = cloud_pairs(evidence, settings)
    if pairs is None:
        return _unmeasured("not worse than the cloud", "the cloud was not asked.")
    shown = pairs.within(margin, settings.alpha)
    state: State = "holds" if shown else "fails" if shown.decidable else "open"
    more = _more(pairs, margin, settings.alpha) if state == "open" else None
    return Rule(
        name="not worse than the cloud",
        state=state,
        numbers=_numbers(pairs) | {"margin": margin, "low": shown.low, "high": shown.high},
        sentence=_against(pairs, "the cloud", shown.low, shown.high, margin, more),
        more=more,
    )


def may_differ(evidence: Evidence, settings: GateSettings) -> float | None:
    """Share of its answers that may be others than the cloud's in a candidate that just keeps the
    margin: where the cloud is right, those that it has wrong; where the cloud is wrong, any."""
    asked = answers(evidence.cloud)
    # Other figures call answers right that are none of the cloud's.
    if settings.margin is None or settings.figure != "call_exact" or not asked:
        return None
    wrong = sum(not right_by(settings)(one) for one in asked) / len(asked)
    return min(1.0, settings.margin + 2 * wrong)


def worth_the_change(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """Better than the champion; or not worse, and cheaper."""
    pairs = champion_pairs(evidence, settings)
    if pairs is None:
        return None
    margin, p = settings.champion_margin, pairs.p_value()
    shown = pairs.within(margin, settings.alpha)
    cost, before = (usd_per_answer(r, settings) for r in (evidence.candidate, evidence.champion))
    numbers = _numbers(pairs) | {"p": p, "low": shown.low, "cost": cost, "champion_cost": before}
    gain = _points(pairs.gain)
    told = f"({gain}, p = {p:.2g}, {pairs.n} items)."
    if p <= settings.alpha and pairs.gain > 0:
        return _change("holds", numbers, f"it is right more often than the champion {told}")
    if p <= settings.alpha or shown.high < -margin:
        return _change("fails", numbers, f"it is right less often than the champion {told}")
    if not shown:
        more = _more(pairs, margin, settings.alpha)
        sentence = f"{pairs.n} items do not tell it from the champion ({gain}); {_that_many(more)}."
        return _change("open", numbers, sentence, more)
    state, sentence = _for_as_good(gain, cost, before, must_go=evidence.must_go)
    return _change(state, numbers, sentence)


def _for_as_good(gain: str, cost: float, before: float, *, must_go: bool) -> tuple[State, str]:
    """Whether a candidate that is not worse is worth the change, and why."""
    same = f"it is not worse than the champion ({gain})"
    money = f"{cost:.2g} instead of {before:.2g} US dollars an answer"
    if must_go:
        return "holds", f"{same}, which learnt from what was erased since."
    if cost < before:
        return "holds", f"{same} and cheaper, {money}."
    return "no reason", f"{same}, but neither better nor cheaper, {money}."


def no_slice_worse(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """No tool and no kind of question on which it is significantly worse, after Holm."""
    before = evidence.champion or evidence.cloud
    if not before:
        return None
    theirs = answers(before)
    found = {
        name: pair(mine, theirs, right_by(settings))
        for name, mine in sliced(answers(evidence.candidate)).items()
    }
    tested = {name: pairs for name, pairs in found.items() if pairs.n >= settings.slice_items}
    adjusted = dict(zip(tested, holm([one.p_value() for one in tested.values()]), strict=True))
    worse = [n for n, p in adjusted.items() if p <= settings.alpha and tested[n].gain < 0]
    said = ", ".join(f"{name} ({_points(tested[name].gain)})" for name in worse)
    return Rule(
        name="no slice worse",
        state="fails" if worse else "holds",
        numbers={"slices": len(tested), "too_small": len(found) - len(tested)}
        | {f"p {name}": p for name, p in adjusted.items()},
        sentence=f"it got worse on {said}."
        if worse
        else f"none of {len(tested)} slices got worse.",
    )


def critical(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """None of the pinned rows is wrong that was right before."""
    if not settings.critical:
        return None
    right = right_by(settings)
    mine = {answer.row: right(answer) for answer in answers(evidence.candidate)}
    before = {a.row: right(a) for a in answers(evidence.champion or evidence.cloud)}
    missing = [row for row in settings.critical if row not in mine]
    failed = [row for row in settings.critical if not mine.get(row, True) and before.get(row, True)]
    state: State = "fails" if failed else "open" if missing else "holds"
    said = {
        "fails": f"it fails {len(failed)} rows that must not fail ({', '.join(failed[:3])}).",
        "open": f"{len(missing)} critical rows were not asked.",
    }
    return Rule(
        name="critical rows",
        state=state,
        numbers={"rows": len(settings.critical), "failed": len(failed), "missing": len(missing)},
        sentence=said.get(state, f"all {len(settings.critical)} critical rows are right."),
    )


# ------------------------------------------------------------------ what must not happen


def few_false_calls(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """Calls where nothing must be called: the upper bound is below the cap."""
    cap = settings.false_calls
    if cap is None:
        return None
    asked = [a for a in answers(evidence.candidate) if not a.score.must_call]
    hits, n = sum(a.score.called for a in asked), len(asked)
    return _capped(
        "few false calls",
        Count(hits, n),
        cap,
        settings.alpha,
        f"it calls a tool in {hits} of {n} requests that need none",
    )


def no_more_false_calls(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """No significantly higher rate of false calls than the champion's, and than the cloud's."""
    mine = [a for a in answers(evidence.candidate) if not a.score.must_call]
    others = {"the champion": evidence.champion, "the cloud": evidence.cloud}
    found = {
        name: pair(mine, answers(reports), lambda a: not a.score.called)
        for name, reports in others.items()
        if reports
    }
    found = {name: pairs for name, pairs in found.items() if pairs.n}
    if not found:
        return None
    adjusted = dict(zip(found, holm([one.p_value() for one in found.values()]), strict=True))
    worse = [name for name, p in adjusted.items() if p <= settings.alpha and found[name].gain < 0]
    said = " and ".join(f"{name} ({_points(-found[name].gain)})" for name in worse)
    return Rule(
        name="no more false calls",
        state="fails" if worse else "holds",
        numbers={f"p {name}": p for name, p in adjusted.items()}
        | {f"more than {name}": -pairs.gain for name, pairs in found.items()},
        sentence=f"it makes more calls that nobody asked for than {said}."
        if worse
        else f"it makes no more false calls than {' and '.join(found)}.",
    )


def valid(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """Answers that satisfy their schema: the lower bound is above the floor."""
    floor = settings.schema_validity
    if floor is None:
        return None
    mine = answers(evidence.candidate)
    hits = sum(not answer.score.json_valid for answer in mine)
    return _capped(
        "valid answers",
        Count(hits, len(mine)),
        1 - floor,
        settings.alpha,
        f"{hits} of {len(mine)} answers break their schema",
    )


def parity(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """Training's prompts are those that are served."""
    if not settings.parity:
        return None
    return _none_of("parity", evidence.parity, "prompts differ between training and serving")


def canaries(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """Planted personal data do not come out."""
    if not settings.canaries:
        return None
    return _none_of("canaries", evidence.canaries, "planted personal data came out")


def quick(evidence: Evidence, settings: GateSettings) -> Rule | None:
    """95 % of the answers come in time, by the interval of that quantile."""
    cap = settings.p95_seconds
    if cap is None:
        return None
    seconds = [answer.seconds for answer in answers(evidence.candidate)]
    found = bootstrap.quantile(seconds, 0.95, certainty=1 - 2 * settings.alpha)
    state: State = "holds" if found.high <= cap else "fails" if found.low > cap else "open"
    return Rule(
        name="quick",
        state=state,
        numbers={"low": found.low, "high": found.high, "cap": cap},
        sentence=f"95 % of the answers take at most {found.low:.2g} to {found.high:.2g} s;"
        f" {cap:.2g} s are allowed.",
    )


# ------------------------------------------------------------------ in common


def usd_per_answer(reports: Sequence[Report], settings: GateSettings) -> float:
    """Mean cost of an answer: a cloud's by its price, a local one's by the machine's time."""
    costs = [_usd(answer, settings) for answer in answers(reports)]
    return sum(costs) / len(costs) if costs else math.nan


def _usd(answer: Answered, settings: GateSettings) -> float:
    price = price_at(PRICES, answer.model, answer.at)
    if price is None:
        return answer.seconds / 3600 * settings.machine_usd_hour
    tokens = answer.prompt_tokens + answer.completion_tokens
    return price.cost(Usage(answer.prompt_tokens, answer.completion_tokens, tokens))


def right_by(settings: GateSettings) -> Callable[[Answered], bool]:
    """Whether an answer is right, as the settings understand it."""
    return lambda answer: bool(getattr(answer.score, settings.figure))


def _pairs(first: Sequence[Report], second: Sequence[Report], settings: GateSettings) -> Pairs:
    return pair(answers(first), answers(second), right_by(settings))


def _numbers(pairs: Pairs) -> dict[str, float]:
    return {
        "n": pairs.n,
        "only_candidate": pairs.only_first,
        "only_other": pairs.only_second,
        "worth": pairs.n * pairs.worth,
        "gain": pairs.gain,
    }


def _change(
    state: State, numbers: dict[str, float], sentence: str, more: int | None = None
) -> Rule:
    return Rule(name="worth the change", state=state, numbers=numbers, sentence=sentence, more=more)


def _against(
    pairs: Pairs, other: str, low: float, high: float, margin: float, more: int | None
) -> str:
    gap = f"{_points(pairs.gain)} beside {other}, {pairs.n} items"
    allowed = f"{100 * margin:.3g} points fewer are allowed"
    if low > -margin:
        return f"it is right about as often as {other} or more ({gap}; at worst {_points(low)})."
    if high < -margin:
        return f"it is right too seldom ({gap}; at best {_points(high)}, and {allowed})."
    return (
        f"{pairs.n} items leave open whether it is as good as {other} ({gap}; at worst"
        f" {_points(low)}, and {allowed}); {_that_many(more)}."
    )


def _more(pairs: Pairs, margin: float, alpha: float) -> int | None:
    """Pairs on top of these that would decide at the present rates."""
    if not pairs.n:
        return None
    times = times_needed(lambda times: pairs.within(margin, alpha, times).decidable)
    return None if math.isinf(times) else math.ceil(pairs.n * (times - 1))


def _that_many(more: int | None) -> str:
    if more is None:
        return "no number of items at these rates would tell"
    return f"some {more} more would tell at these rates"


def _capped(name: str, count: Count, cap: float, alpha: float, said: str) -> Rule:
    """A rate that must lie below a cap: shown, refuted, or open."""
    high, low = upper(count.hits, count.n, 1 - alpha), lower(count.hits, count.n, 1 - alpha)
    state: State = "holds" if high <= cap else "fails" if low > cap else "open"
    more = _more_below(count, cap, alpha) if state == "open" else None
    bound = f"at least {low:.1%}" if state == "fails" else f"at most {high:.1%}"
    rate = f"{said} ({bound} with {1 - alpha:.0%} certainty; {cap:.1%} are allowed)"
    return Rule(
        name=name,
        state=state,
        numbers={"hits": count.hits, "n": count.n, "low": low, "high": high, "cap": cap},
        sentence=f"{rate}; {_that_many(more)}." if state == "open" else f"{rate}.",
        more=more,
    )


def _more_below(count: Count, cap: float, alpha: float) -> int | None:
    n = max(count.n, 1)

    def decides(times: float) -> bool:
        hits, of = round(count.hits * times), round(n * times)
        return upper(hits, of, 1 - alpha) <= cap or lower(hits, of, 1 - alpha) > cap

    times = times_needed(decides)
    return None if math.isinf(times) else math.ceil(n * times) - count.n


def _none_of(name: str, count: Count | None, what: str) -> Rule:
    if count is None or not count.n:
        return _unmeasured(name, f"whether {what} was not measured.")
    return Rule(
        name=name,
        state="fails" if count.hits else "holds",
        numbers={"hits": count.hits, "n": count.n, "high": upper(count.hits, count.n)},
        sentence=f"{count.hits} of {count.n} {what}.",
    )


def _unmeasured(name: str, sentence: str) -> Rule:
    return Rule(name=name, state="open", numbers={}, sentence=sentence)


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"
