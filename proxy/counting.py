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
        usage = attempt.usage or _estimated(attempt, request_bytes)
        if usage is None:
            return attempt
        price = price_at(self._prices, attempt.model, attempt.started_at) if attempt.model else None
        return replace(
            attempt,
            usage=usage,
            usage_source="reported" if attempt.usage else "estimated",
            cost_usd=price.cost(usage, attempt.cached_tokens) if price else None,
        )


def _estimated(attempt: Attempt, request_bytes: int) -> Usage | None:
    """Tokens by the length of the texts; None when nothing was said.

    Who left before that is counted the prompt: the backend has read it, and will ask for it.
    """
    characters = sum(map(len, _texts(attempt.answer)))
    has_left = attempt.outcome == "client_aborted" and request_bytes >= _CHARACTERS
    if not characters and not has_left:
        return None
    return Usage.of(request_bytes // _CHARACTERS, -(-characters // _CHARACTERS))


def _texts(answer: Answer) -> Iterator[str]:
    yield answer.text
    yield answer.refusal
    for call in answer.tool_calls:
        yield call.function.name
        yield call.function.arguments
