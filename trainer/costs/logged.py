"""Volume and tokens of a case, as the record has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from proxy.protocol.exchange import CHAT, Attempt, Exchange
from trainer.costs.case import Case, Tokens
from trainer.errors import CostError

_MONTH_S = 730 * 60 * 60
_LEAST_S = 60 * 60
"""Shorter records are taken for an hour's: a burst of a minute is no month's volume."""


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and answered in some time."""

    calls: int
    seconds: float
    """From the first request to the last."""
    tokens: Tokens
    """Of a call, on average, as whoever answered counted them."""
    clouds_share: float
    """Of the calls; the attempts that failed before a cloud answered are not in `tokens`."""
    models: dict[str, int]
    """Cloud's model → answers."""

    @property
    def calls_a_month(self) -> float:
        return self.calls * _MONTH_S / max(self.seconds, _LEAST_S)


def logged(exchanges: Iterable[Exchange]) -> Logged:
    """What completed exchanges come to; raises CostError where none tells its tokens."""
    prompt, cached, completion, calls, clouds = 0, 0, 0, 0, 0
    first, last = float("inf"), 0.0
    models: Counter[str] = Counter()
    for exchange in exchanges:
        shown = _shown(exchange)
        if shown is None or shown.usage is None:
            continue
        calls, first, last = (
            calls + 1,
            min(first, exchange.started_at),
            max(last, exchange.started_at),
        )
        prompt += shown.usage.prompt_tokens
        cached += shown.cached_tokens
        completion += shown.usage.completion_tokens
        if shown.model is not None:
            clouds += 1
            models[shown.model] += 1
    if not calls:
        raise CostError("the record has no completed chat that tells its tokens")
    return Logged(
        calls=calls,
        seconds=last - first,
        tokens=Tokens(prompt=prompt / calls, cached=cached / calls, completion=completion / calls),
        clouds_share=clouds / calls,
        models=dict(models.most_common()),
    )


def applied(case: Case, found: Logged) -> Case:
    """The case with the record's volume and tokens, and its share of the cloud once home answers
    at all."""
    at_home = found.clouds_share < 1
    return msgspec.structs.replace(
        case,
        calls=found.calls_a_month,
        tokens=found.tokens,
        clouds_share=found.clouds_share if at_home else case.clouds_share,
    )


def _shown(exchange: Exchange) -> Attempt | None:
    if exchange.endpoint != CHAT or exchange.outcome != "completed" or not exchange.attempts:
        return None
    return exchange.attempts[-1]
