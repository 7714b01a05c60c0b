"""What an attempt used, estimated where nobody counted, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from proxy.protocol.exchange import Answer, Attempt
from proxy.protocol.openai import Usage
from proxy.protocol.prices import PRICES, PriceTable, price_at

_CHARACTERS = 4
"""Characters of a token, where nobody counted: about right for English (OpenAI, "What are tokens
and how to count them")."""


class Counting:
    """Knows the prices. Pure."""

    def __init__(self, prices: PriceTable = PRICES) -> None:
        self._prices = prices

    def __call__(self, attempt: Attempt, request_bytes: int) -> Attempt:
        """The attempt with its usage, estimated if need be, and its cost where a price is known."""
        usage = attempt.usage or _estimated(attempt.answer, request_bytes)
        if usage is None:
            return attempt
        price = price_at(self._prices, attempt.model, attempt.started_at) if attempt.model else None
        return replace(
            attempt,
            usage=usage,
            usage_source="reported" if attempt.usage else "estimated",
            cost_usd=price.cost(usage, attempt.cached_tokens) if price else None,
        )


def _estimated(answer: Answer, request_bytes: int) -> Usage | None:
    """Tokens by the length of the texts; None when nothing was said."""
    characters = sum(map(len, _texts(answer)))
    if not characters:
        return None
    return Usage.of(request_bytes // _CHARACTERS, -(-characters // _CHARACTERS))


def _texts(answer: Answer) -> Iterator[str]:
    yield answer.text
    yield answer.refusal
    for call in answer.tool_calls:
        yield call.function.name
        yield call.function.arguments
