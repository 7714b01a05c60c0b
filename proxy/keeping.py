"""From a recording to what is kept of it; runs in the recorder's thread, before the disk.

recording → exchange → conversation, tool results → usage and cost → level → redaction
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from proxy.conversation import Conversation
from proxy.counting import Counting
from proxy.outcomes import OutcomeRules
from proxy.protocol.exchange import Answer, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.redact import Redactor
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed
from proxy.recording import Recording

_exchange = msgspec.json.Decoder(Exchange)
_feedback = msgspec.json.Decoder(Feedback)
_shadowed = msgspec.json.Decoder(Shadowed)


class Keeping:
    """Makes of recordings, feedback and shadows what may be written. Pure."""

    def __init__(
        self,
        *,
        redactor: Redactor | None = None,
        counting: Counting | None = None,
        rules: OutcomeRules | None = None,
    ) -> None:
        self._redactor = redactor
        self._counting = counting or Counting()
        self._rules = rules or OutcomeRules()

    def __call__(self, one: Recording | Feedback | Shadowed) -> Record:
        """What is kept of this one."""
        match one:
            case Feedback():
                return self._redacted_feedback(one)
            case Shadowed():
                return self._redacted_shadow(one)
            case Recording():
                return self._exchange(one)

    def _exchange(self, one: Recording) -> Exchange:
        exchange = one.exchange()
        said, size = Conversation(bytes(exchange.request)), len(bytes(exchange.request))
        whole = replace(
            exchange,
            conversation=said.id(exchange.tenant, one.conversation),
            tool_results=said.tool_results(self._rules),
            attempts=[self._counting(attempt, size) for attempt in exchange.attempts],
        )
        return self._redacted(whole if whole.level == "full" else _without_words(whole))

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

    def _redacted_shadow(self, shadowed: Shadowed) -> Shadowed:
        if self._redactor is None:
            return shadowed
        # The scope of its exchange: what is replaced there has the same pseudonym here.
        scope = f"{shadowed.tenant}\0{shadowed.conversation}"
        return _shadowed.decode(self._redactor.redact_json(msgspec.json.encode(shadowed), scope))


def _without_words(exchange: Exchange) -> Exchange:
    attempts = [replace(attempt, answer=_outline(attempt.answer)) for attempt in exchange.attempts]
    return replace(exchange, request=msgspec.Raw(b"{}"), attempts=attempts)


def _outline(answer: Answer) -> Answer:
    return Answer(finish_reason=answer.finish_reason)
