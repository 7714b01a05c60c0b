"""What tokens cost: dated prices, so that an old exchange keeps the price of its day.

Source of the table: listings that quote the providers' pricing pages for the standard tier (looked
up 2026-11-22; of claude-haiku-5-5, prompts of up to 100 000 tokens). It is no bill: routes.yaml
(`record.prices`) overrides and extends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import msgspec

from proxy.protocol.openai import Usage

_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})$")
_MILLION = 1_000_000


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """US dollars for a million tokens, from a day on."""

    since: date
    """First day of this price (UTC)."""
    input: float
    output: float
    cached_input: float | None = None
    """Of prompt tokens that the provider had in its cache; default: as `input`."""

    def cost(self, usage: Usage, cached_tokens: int = 0) -> float:
        """What these tokens cost, in US dollars."""
        cached = min(cached_tokens, usage.prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = (usage.prompt_tokens - cached) * self.input
        return (fresh + cached * cached_price + usage.completion_tokens * self.output) / _MILLION


PriceTable = Mapping[str, Sequence[Price]]
"""Prices of each model, in any order."""

_SINCE = date(2026, 3, 1)


def _price(input: float, cached_input: float, output: float, since: date = _SINCE) -> list[Price]:
    return [Price(since=since, input=input, cached_input=cached_input, output=output)]


PRICES: PriceTable = {
    "gpt-4o": _price(2.50, 1.25, 10.00),
    "gpt-4o-mini": _price(0.15, 0.075, 0.60),
    "gpt-4.1": _price(2.00, 0.50, 8.00),
    "gpt-4.1-mini": _price(0.40, 0.10, 1.60),
    "gpt-4.1-nano": _price(0.10, 0.025, 0.40),
    "gpt-5": _price(1.25, 0.125, 10.00),
    "gpt-5-mini": _price(0.25, 0.025, 2.00),
    "gpt-6-luna": _price(0.10, 0.01, 0.50, date(2026, 9, 22)),
    "gpt-6-sol": _price(2.00, 0.20, 10.00, date(2026, 9, 22)),
    "claude-haiku-4-5": _price(1.00, 0.10, 5.00, date(2026, 10, 1)),
    "claude-haiku-5-5": _price(0.10, 0.01, 0.50, date(2026, 10, 7)),
}


def price_at(table: PriceTable, model: str, at: float) -> Price | None:
    """The price of a model at a time (seconds since the epoch); None when there is none.

    A dated snapshot (`gpt-4o-2024-08-06`) without a price of its own has that of its model.
    """
    prices = table.get(model) or table.get(_SNAPSHOT.sub("", model)) or ()
    day = datetime.fromtimestamp(at, UTC).date()
    valid = [price for price in prices if price.since <= day]
    return max(valid, key=lambda price: price.since, default=None)
