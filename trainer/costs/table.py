"""What a million calls cost in the cloud, by model and by the shape of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.protocol.prices import PriceTable
from trainer.costs.case import Tokens

SHAPES: Mapping[str, Tokens] = {
    "500 in, 500 out": Tokens(prompt=500, completion=500),
    "1,500 in, 60 out": Tokens(prompt=1500, completion=60),
    "the same, 1,350 cached": Tokens(prompt=1500, cached=1350, completion=60),
    "400 in, 100 out": Tokens(prompt=400, completion=100),
}
"""A text, a tool call, the same in a conversation, a short call."""


def a_million(prices: PriceTable) -> Iterator[tuple[str, str, list[float]]]:
    """(model, since when its latest price holds, US dollars for each shape), dearest first."""
    latest = {model: max(table, key=lambda price: price.since) for model, table in prices.items()}
    for model, price in sorted(latest.items(), key=lambda one: -one[1].output):
        amounts = [1e6 * tokens.usd(price) for tokens in SHAPES.values()]
        yield model, price.since.isoformat(), amounts
