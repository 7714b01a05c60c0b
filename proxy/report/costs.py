"""What was saved since requests are answered at home, from the tokens and prices of the record.

What the cloud would have asked for a request that was answered at home: its tokens, as counted at
home, at the cloud's price of that day. A cloud counts tokens otherwise, is wordier or terser, and
may have had a part of the prompt in its cache: pairs of the same request (shadows) tell the factor
between its real bill and that reckoning; without pairs it is taken as 1, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from statistics import fmean
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.evidence import bootstrap
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.hardware import CostSettings
from proxy.protocol.openai import Usage
from proxy.protocol.page.words import count, roughly, told
from proxy.protocol.prices import PriceTable, price_at

Cheaper: TypeAlias = Literal["home", "cloud", "undecided", "unknown"]
_MONTH = 730 * 60 * 60
"""Seconds."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one day that were answered at home and asked for one model."""

    at: float
    """Seconds since the epoch."""
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Twice(msgspec.Struct, frozen=True, kw_only=True):
    """A request that home and the cloud both answered."""

    at: float
    conversation: str
    prompt_tokens: int
    completion_tokens: int
    """As counted at home."""
    model: str
    """Of the cloud."""
    cost_usd: float
    """What the cloud's answer really cost."""


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """What clouds were paid."""

    requests: int
    answers_usd: float
    """For answers to clients, those that failed included."""
    shadows_usd: float
    """For shadows: the price of knowing."""


class Factor(msgspec.Struct, frozen=True):
    """The cloud's real bill over its price for the tokens that were counted at home."""

    value: float
    interval: Interval
    n: int


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """A period's costs, in dollars."""

    version: int = 1
    since: float
    until: float
    cheaper: Cheaper
    sentence: str
    at_home: int
    """Requests that were answered at home, and whose price in the cloud is known."""
    unpriced: dict[str, int]
    """Requests answered at home for models whose price is not known; they save nothing here."""
    cloud_instead: float
    """What the cloud would have asked for those answered at home."""
    cloud_instead_interval: Interval
    factor: Factor
    own: dict[str, float] | None
    """What own hardware cost in the period; None where routes.yaml does not say."""
    paid: Paid
    saved: float
    """`cloud_instead` less own costs and shadows."""
    saved_interval: Interval
    break_even: float | None
    """Requests a month above which home is cheaper; None where that is unknown."""


def bill(
    answered: Iterable[Answered],
    twice: Sequence[Twice],
    paid: Paid,
    prices: PriceTable,
    settings: CostSettings | None,
    *,
    since: float,
    until: float,
    part: float = 1.0,
) -> Bill:
    """The costs of a period; `part` is the share of own hardware's work that it is about."""
    priced, unpriced = _priced(answered, prices, settings)
    requests, reckoned = sum(n for n, _ in priced), sum(usd for _, usd in priced)
    factor = _factor(twice, prices)
    months = (until - since) / _MONTH
    own = _own(settings, months * part)
    spent = sum((own or {}).values()) + paid.shadows_usd
    instead = Interval(reckoned * factor.interval.low, reckoned * factor.interval.high)
    saved = Interval(instead.low - spent, instead.high - spent)
    even = _break_even(own, months, reckoned * factor.value / requests if requests else 0.0)
    found = Bill(
        since=since,
        until=until,
        cheaper=_cheaper(saved, own),
        sentence="",
        at_home=requests,
        unpriced=unpriced,
        cloud_instead=reckoned * factor.value,
        cloud_instead_interval=instead,
        factor=factor,
        own=own,
        paid=paid,
        saved=reckoned * factor.value - spent,
        saved_interval=saved,
        break_even=even,
    )
    return msgspec.structs.replace(found, sentence=_sentence(found))


def _own(settings: CostSettings | None, months: float) -> dict[str, float] | None:
    if settings is None:
        return None
    return {name: usd * months for name, usd in settings.monthly_usd().items()}


def _priced(
    answered: Iterable[Answered], prices: PriceTable, settings: CostSettings | None
) -> tuple[list[tuple[int, float]], dict[str, int]]:
    """(requests, dollars) where the price is known, and requests by model where it is not."""
    priced: list[tuple[int, float]] = []
    unpriced: dict[str, int] = {}
    for one in answered:
        model = (settings and settings.instead_of) or one.model
        reckoned = _reckoned(prices, model, one)
        if reckoned is None:
            unpriced[model] = unpriced.get(model, 0) + one.requests
        else:
            priced.append((one.requests, reckoned))
    return priced, unpriced


def _reckoned(prices: PriceTable, model: str, of: Answered | Twice) -> float | None:
    price = price_at(prices, model, of.at)
    return price.cost(Usage.of(of.prompt_tokens, of.completion_tokens)) if price else None


def _factor(twice: Sequence[Twice], prices: PriceTable) -> Factor:
    known = [
        (one, reckoned)
        for one in twice
        if (reckoned := _reckoned(prices, one.model, one)) is not None and reckoned > 0
    ]
    if not known:
        return Factor(1.0, Interval(1.0, 1.0), 0)
    real, at_home = [one.cost_usd for one, _ in known], [reckoned for _, reckoned in known]
    conversations = [one.conversation for one, _ in known]
    interval = bootstrap.ratio(real, at_home, conversations)
    return Factor(fmean(real) / fmean(at_home), interval, len(known))


def _break_even(own: Mapping[str, float] | None, months: float, each: float) -> float | None:
    if own is None or not months or not each:
        return None
    return sum(own.values()) / months / each


def _cheaper(saved: Interval, own: Mapping[str, float] | None) -> Cheaper:
    if own is None:
        return "unknown"
    if saved.low > 0:
        return "home"
    return "cloud" if saved.high < 0 else "undecided"


def _sentence(of: Bill) -> str:
    own = sum((of.own or {}).values())
    sums = (
        f"{count(of.at_home)} requests answered at home would have cost"
        f" {told(of.cloud_instead, 'dollars')} in the cloud"
    )
    match of.cheaper:
        case "unknown":
            return (
                f"{sums}; what own hardware costs is not known: add `costs` to routes.yaml"
                " (docs/reports.md)."
            )
        case "home":
            return f"Saved {told(of.saved, 'dollars')}: {sums}, and cost {_spent(of, own)}."
        case "cloud":
            return (
                f"The cloud would be cheaper, by {told(-of.saved, 'dollars')}: {sums}, and cost"
                f" {_spent(of, own)}.{_even(of.break_even)}"
            )
        case "undecided":
            low, high = of.saved_interval.low, of.saved_interval.high
            return (
                f"About even: between {told(low, 'dollars')} and {told(high, 'dollars')} saved."
                f" {sums}, and cost {_spent(of, own)}."
            )


def _spent(of: Bill, own: float) -> str:
    shadows = of.paid.shadows_usd
    beside = f", with {told(shadows, 'dollars')} for shadows in the cloud" if shadows else ""
    return f"{told(own, 'dollars')} at home{beside}"


def _even(break_even: float | None) -> str:
    if break_even is None or break_even == inf:
        return ""
    return f" Home is cheaper from {roughly(break_even)} such requests a month."


def lines(of: Bill) -> Iterable[str | tuple[str, ...]]:
    """Lines of text, and rows of a table as tuples."""
    yield of.sentence
    yield ""
    yield ("in dollars", "amount", "95 %", "rests on")
    yield (
        "the cloud, for what home answered",
        told(of.cloud_instead, "dollars"),
        _span(of.cloud_instead_interval),
        f"{count(of.at_home)} requests",
    )
    for name, amount in (of.own or {}).items():
        yield (f"home: {name}", told(amount, "dollars"), "", "routes.yaml, costs")
    yield ("paid to clouds for shadows", told(of.paid.shadows_usd, "dollars"), "", "the record")
    yield (
        "paid to clouds for answers",
        told(of.paid.answers_usd, "dollars"),
        "",
        f"{count(of.paid.requests)} requests, the same either way",
    )
    yield ("saved", told(of.saved, "dollars"), _span(of.saved_interval), "")
    yield ""
    yield _factored(of.factor)
    for model, requests in of.unpriced.items():
        yield f"{count(requests)} requests for {model!r} have no known price (record.prices)"


def _span(of: Interval) -> str:
    return f"[{told(of.low, 'dollars')}, {told(of.high, 'dollars')}]" if of.low < of.high else ""


def _factored(of: Factor) -> str:
    if not of.n:
        return "no pairs with the cloud: its tokens are taken to be those that home counted"
    low, high = of.interval.low, of.interval.high
    return (
        f"the cloud's bills are {of.value:.2f} [{low:.2f}, {high:.2f}] times its price for the"
        f" tokens that home counted, in {count(of.n)} pairs"
    )
