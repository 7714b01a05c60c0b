"""From a recording to what is kept of it; runs in the recorder's thread, before the disk.

recording → exchange → conversation, tool results → usage and cost → level → redaction
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from proxy.conversation import Conversation
from proxy.outcomes import OutcomeRules
from proxy.protocol.exchange import Answer, Attempt, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import Usage
from proxy.protocol.prices import PRICES, PriceTable, price_at
from proxy.protocol.redact import Redactor
from proxy.protocol.segments import Record
from proxy.recording import Recording

_CHARACTERS = 4
"""Characters of a token, where nobody counted: about right for English (OpenAI, "What are tokens
and how to count them")."""

_exchange = msgspec.json.Decoder(Exchange)
_feedback = msgspec.json.Decoder(Feedback)


class Keeping:
    """Makes of recordings and feedback what may be written. Pure."""

    def __init__(
        self,
        *,
        redactor: Redactor | None = None,
        prices: PriceTable = PRICES,
        rules: OutcomeRules | None = None,
    ) -> None:
        self._redactor = redactor
        self._prices = prices
        self._rules = rules or OutcomeRules()

    def __call__(self, one: Recording | Feedback) -> Record:
        """What is kept of this one."""
        if isinstance(one, Feedback):
            return self._redacted_feedback(one)
        exchange = one.exchange()
        said = Conversation(bytes(exchange.request))
        whole = replace(
            exchange,
            conversation=said.id(exchange.tenant, one.conversation),
            tool_results=said.tool_results(self._rules),
            attempts=[self._counted(attempt, exchange) for attempt in exchange.attempts],
        )
        return self._redacted(whole if whole.level == "full" else _without_words(whole))

    def _counted(self, attempt: Attempt, exchange: Exchange) -> Attempt:
        """The attempt with its usage, estimated if need be, and what that costs."""
        usage = attempt.usage or _estimated(attempt.answer, exchange)
        if usage is None:
            return attempt
        price = price_at(self._prices, attempt.model, attempt.started_at) if attempt.model else None
        return replace(
            attempt,
            usage=usage,
            usage_source="reported" if attempt.usage else "estimated",
            cost_usd=price.cost(usage, attempt.cached_tokens) if price else None,
        )

    def _redacted(self, exchange: Exchange) -> Exchange:
        if self._redactor is None:
            return exchange
        scope = f"{exchange.tenant}\0{exchange.conversation}"
        return _exchange.decode(self._redactor.redact_json(msgspec.json.encode(exchange), scope))

    def _redacted_feedback(self, feedback: Feedback) -> Feedback:
        if self._redactor is None:
            return feedback
        scope = f"{feedback.tenant}\0{feedback.conversation or feedback.exchange}"
        return _feedback.decode(self._redactor.redact_json(msgspec.json.encode(feedback), scope))


def _estimated(answer: Answer, exchange: Exchange) -> Usage | None:
    """Tokens by the length of the texts; None when nothing was said."""
    characters = sum(map(len, _texts(answer)))
    if not characters:
        return None
    return Usage.of(len(bytes(exchange.request)) // _CHARACTERS, -(-characters // _CHARACTERS))


def _texts(answer: Answer) -> Iterator[str]:
    yield answer.text
    yield answer.refusal
    for call in answer.tool_calls:
        yield call.function.name
        yield call.function.arguments


def _without_words(exchange: Exchange) -> Exchange:
    attempts = [replace(attempt, answer=_outline(attempt.answer)) for attempt in exchange.attempts]
    return replace(exchange, request=msgspec.Raw(b"{}"), attempts=attempts)


def _outline(answer: Answer) -> Answer:
    return Answer(finish_reason=answer.finish_reason)
