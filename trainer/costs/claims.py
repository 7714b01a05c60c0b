"""Figures that others have published, reckoned again from what they name, and what they leave out.

*The pitch*: calls of own APIs by a tuned Llama 3.1 8B on two RTX 3090s. *The article*: a tuned
Llama 3 8B for Python's documentation on a rented A6000. `full` is the same with what is left out,
by the assumptions that `leaves_out` names.
"""

from __future__ import annotations

from datetime import date

import msgspec

from proxy.protocol.hardware import CostSettings, Hardware
from proxy.protocol.prices import PRICES, Price
from trainer.costs.case import Tokens

_MILLION = 1_000_000
_HOURS = 730
"""Of a month."""
_CARDS = CostSettings(
    hardware=[Hardware(name="RTX 3090", price=1499, life_months=36, count=2, watts=0)],
    duty=0,
    per_kwh=0,
)
_POWERED = CostSettings(
    hardware=[Hardware(name="RTX 3090", price=1499, life_months=36, count=2, watts=350)],
    duty=1,
    per_kwh=0.1872,
    other_per_month=16,
    ops_hours=4,
    per_ops_hour=100,
)
_GPT4_INPUT = Price(since=date(2023, 3, 14), input=30, output=30)
_GPT4_OUTPUT = Price(since=date(2023, 3, 14), input=60, output=60)
_A6000_HOUR, _TRAINING, _QUERY = 0.29, 7.0, 0.06
_LABOUR = 40 * 100


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One figure."""

    source: str
    what: str
    unit: str
    claimed: float
    reckoned: float
    how: str
    full: float
    """The same, all counted."""
    leaves_out: str

    @property
    def holds(self) -> bool:
        """Whether the arithmetic gives it, but for rounding, which may be to one digit."""
        return abs(self.reckoned - self.claimed) <= 0.2 * self.claimed


def claims() -> list[Claim]:
    """All of them, in the order of their sources."""
    return [_cards(), _calls(), _queries(), _hosting(), _break_even()]


def _cards() -> Claim:
    return Claim(
        source="pitch",
        what="two RTX 3090s",
        unit="$ a month",
        claimed=83,
        reckoned=sum(_CARDS.monthly_usd().values()),
        how="2 × $1,499 over 36 months",
        full=sum(_POWERED.monthly_usd().values()),
        leaves_out="electricity (700 W around the clock at 18.72 ct), the host ($16), and people:"
        " four hours a month at $100",
    )


def _calls() -> Claim:
    return Claim(
        source="pitch",
        what="a million calls in the cloud",
        unit="$",
        claimed=15_000,
        reckoned=_MILLION * Tokens(prompt=500, completion=0).usd(_GPT4_INPUT),
        how="1 M × 500 tokens at $0.03 per 1,000",
        full=_MILLION * Tokens(prompt=440, completion=60).usd(PRICES["gpt-4o"][0]),
        leaves_out="that prices fall: gpt-4o, 440 tokens in and 60 out, at today's price",
    )


def _queries() -> Claim:
    return Claim(
        source="article",
        what="a million questions in the cloud",
        unit="$",
        claimed=60_000,
        reckoned=_MILLION * Tokens(prompt=0, completion=1000).usd(_GPT4_OUTPUT),
        how="1 M × 1,000 tokens at $0.06 per 1,000",
        full=_MILLION * Tokens(prompt=500, completion=500).usd(PRICES["gpt-4o"][0]),
        leaves_out="that a prompt costs less than an answer, and today's price: gpt-4o, 500 in and"
        " 500 out",
    )


def _hosting() -> Claim:
    return Claim(
        source="article",
        what="the same at home",
        unit="$ a month",
        claimed=210,
        reckoned=_A6000_HOUR * _HOURS,
        how="a rented A6000 at $0.29 an hour",
        full=_A6000_HOUR * _HOURS + 4 * 100,
        leaves_out="people: four hours a month at $100. One card has no spare, and a"
        " million answers of 500 tokens want some 190 tokens a second around the clock",
    )


def _break_even() -> Claim:
    hosted = _TRAINING + _A6000_HOUR * _HOURS + _LABOUR
    return Claim(
        source="article",
        what="break-even",
        unit="questions",
        claimed=100,
        reckoned=_TRAINING / _QUERY,
        how="$7 of training ÷ $0.06 a question",
        full=hosted / _QUERY,
        leaves_out="the first month's hosting (3,500 questions) and 40 hours of a person at $100"
        " (66,700)",
    )
