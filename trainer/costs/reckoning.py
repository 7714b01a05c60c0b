"""A case → what home and the cloud cost a month, where they break even, and what speaks against.

    break-even, calls a month   fixed costs at home ÷ what one call at home saves
    payback, months             what was spent at first ÷ what a month saves

Neither is a number where home saves nothing: then the cloud is cheaper, and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite

import msgspec

from proxy.protocol.evidence.power import pairs_needed
from proxy.protocol.page.words import count, roughly, told
from proxy.protocol.prices import Price, PriceTable, price_at
from trainer.costs.case import Case
from trainer.errors import CostError


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One reason not to fine-tune, and whether it applies."""

    name: str
    speaks_against: bool | None
    """None: what it takes is not known."""
    value: float | None
    limit: float
    sentence: str


class Reckoning(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a case, in US dollars."""

    version: int = 1
    case: Case
    price: Price
    """Of the cloud's model, on that day."""
    per_call: float
    """What the cloud asks for one call."""
    cloud: float
    """A month, all of it in the cloud."""
    own: dict[str, float]
    """A month at home, by what it is for."""
    making: dict[str, float]
    """One adapter."""
    once: float
    """Before the first call is answered at home."""
    saved: float
    """A month; below 0 where the cloud is cheaper."""
    break_even: float | None
    """Calls a month; None where no number of them would do."""
    payback: float | None
    """Months; None where it never comes back."""
    rules: list[Rule]
    sentence: str

    @property
    def home(self) -> float:
        return sum(self.own.values())


def reckon(case: Case, prices: PriceTable, at: float) -> Reckoning:
    """The costs of a case by the prices of a day (seconds since the epoch).

    Raises CostError for a model without a price.
    """
    price = case.price or price_at(prices, case.model, at)
    if price is None:
        known = ", ".join(sorted(name for name in prices if price_at(prices, name, at)))
        raise CostError(f"no price for {case.model!r}; give `price`, or one of {known or 'none'}")
    per_call = case.tokens.usd(price)
    making = _making(case, price)
    own = _own(case, sum(making.values()), per_call)
    saved = case.calls * per_call - sum(own.values())
    once = sum(making.values()) + case.first_hours * case.own.per_ops_hour * case.own.usd
    fixed = sum(usd for name, usd in own.items() if name != _CLOUD)
    gain = per_call * (1 - case.clouds_share)
    found = Reckoning(
        case=case,
        price=price,
        per_call=per_call,
        cloud=case.calls * per_call,
        own=own,
        making=making,
        once=once,
        saved=saved,
        break_even=fixed / gain if gain > 0 else None,
        payback=once / saved if saved > 0 else None,
        rules=[],
        sentence="",
    )
    found = msgspec.structs.replace(found, rules=list(_rules(found)))
    return msgspec.structs.replace(found, sentence=_sentence(found))


_CLOUD = "the cloud's share of the calls"


def _making(case: Case, price: Price) -> dict[str, float]:
    of = case.making
    return {
        "training": of.gpu_hours * of.per_gpu_hour,
        "labels": of.labels * of.label.usd(price),
        "evaluation": of.judged * of.judgement.usd(price),
        "people": of.people_hours * case.own.per_ops_hour * case.own.usd,
    }


def _own(case: Case, making: float, per_call: float) -> dict[str, float]:
    trainings = case.retrainings + case.schema_changes
    return case.own.monthly_usd() | {
        "new adapters": trainings * making,
        _CLOUD: case.clouds_share * case.calls * per_call,
    }


# ---------------------------------------------------------------- when not to


def _rules(of: Reckoning) -> Iterable[Rule]:
    yield _volume(of)
    yield _payback(of)
    yield _rows(of.case)
    yield _drift(of)


def _volume(of: Reckoning) -> Rule:
    limit = inf if of.break_even is None else of.break_even
    return Rule(
        name="volume",
        speaks_against=of.case.calls < limit,
        value=of.case.calls,
        limit=limit,
        sentence=f"{count(of.case.calls)} calls a month; home is cheaper from"
        f" {roughly(limit) if isfinite(limit) else 'no number of them'} on.",
    )


def _payback(of: Reckoning) -> Rule:
    limit = of.case.payback_months
    months = "never" if of.payback is None else f"in {of.payback:.1f} months"
    return Rule(
        name="payback",
        speaks_against=of.payback is None or of.payback > limit,
        value=of.payback,
        limit=limit,
        sentence=f"The first {told(of.once, 'dollars')} come back {months};"
        f" at most {limit:g} are accepted.",
    )


def _rows(case: Case) -> Rule:
    held_out = pairs_needed(case.discordance, case.margin)
    limit = case.least_rows + held_out
    known = "How many rows there are is not known" if case.rows is None else f"{case.rows} rows"
    return Rule(
        name="rows",
        speaks_against=None if case.rows is None else case.rows < limit,
        value=case.rows,
        limit=limit,
        sentence=f"{known}; it takes {case.least_rows} to train on and {held_out:.0f} held out, or"
        f" the gate cannot show that the adapter is within {100 * case.margin:g} points.",
    )


def _drift(of: Reckoning) -> Rule:
    """Schema changes a month that what is saved would still pay for."""
    case, each = of.case, sum(of.making.values())
    before = of.saved + case.schema_changes * each
    limit = max(0.0, before / each) if each else inf
    return Rule(
        name="drift",
        speaks_against=case.schema_changes > limit or before <= 0,
        value=case.schema_changes,
        limit=limit,
        sentence=f"{case.schema_changes:g} changes of the tools' schemas a month, each a training"
        f" for {told(each, 'dollars')}; home stays cheaper up to"
        f" {f'{limit:.1f}' if isfinite(limit) else 'any number'}.",
    )


# ---------------------------------------------------------------- in words


def _sentence(of: Reckoning) -> str:
    against = [rule.name for rule in of.rules if rule.speaks_against]
    month = f"{told(of.home, 'dollars')} a month at home, {told(of.cloud, 'dollars')} in the cloud"
    if of.saved <= 0:
        even = "" if of.break_even is None else f" Home is cheaper from {roughly(of.break_even)}"
        return f"The cloud is cheaper: {month}.{even}{' calls a month on.' if even else ''}"
    if against:
        return f"Better not, because of {' and '.join(against)}: {month}."
    return (
        f"Home is cheaper: {month}; the first {told(of.once, 'dollars')} are back in"
        f" {of.payback:.1f} months."
    )
