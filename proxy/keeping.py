"""From a recording to what is kept of it; runs in the recorder's thread, before the disk.

recording → exchange → conversation, tool results → usage and cost → level → redaction
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from proxy.conversation import Conversation
from proxy.counting import Counting
from proxy.outcomes import OutcomeRules
from proxy.protocol.exchange import Answer, Attempt, Exchange, ToolResult
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import FunctionCall, ToolCall
from proxy.protocol.redact import Redactor
from proxy.protocol.segments import Record
from proxy.protocol.shadowed import Shadowed
from proxy.recording import Recording

_NAMED = ("tenant", "caller", "model", "endpoint")
"""What clients, keys and identity providers name; all else that is no id comes from routes.yaml."""
_IDS = ("id", "request_id", "conversation")
_OURS = re.compile(r"(?:req_|chatcmpl-|conv-|pass-|call_)[0-9a-f]{24,32}")

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
        text = self._redactor.within(scope).text
        said = {name: text(getattr(exchange, name)) for name in _NAMED}
        said |= {name: _without_data(getattr(exchange, name), text) for name in _IDS}
        return replace(
            exchange,
            **said,
            tool_results=[_redacted_result(one, text) for one in exchange.tool_results],
            request=msgspec.Raw(self._redactor.redact_json(bytes(exchange.request), scope)),
            attempts=[_redacted_attempt(one, text) for one in exchange.attempts],
            drifted=list(map(text, exchange.drifted)),
        )

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


def _without_data(id: str, text: Callable[[str], str]) -> str:
    """An id; ours hold nothing, though some of their digits may look like it."""
    return id if _OURS.fullmatch(id) else text(id)


def _redacted_result(one: ToolResult, text: Callable[[str], str]) -> ToolResult:
    return replace(one, tool_call_id=text(one.tool_call_id), name=one.name and text(one.name))


def _redacted_attempt(one: Attempt, text: Callable[[str], str]) -> Attempt:
    said = one.answer
    answer = replace(
        said,
        text=text(said.text),
        refusal=text(said.refusal),
        tool_calls=[_redacted_call(call, text) for call in said.tool_calls],
        finish_reason=said.finish_reason and text(said.finish_reason),
    )
    return replace(one, model=one.model and text(one.model), answer=answer)


def _redacted_call(call: ToolCall, text: Callable[[str], str]) -> ToolCall:
    name, arguments = text(call.function.name), text(call.function.arguments)
    id = _without_data(call.id, text)
    return ToolCall(id, FunctionCall(name, arguments), text(call.type))


def _without_words(exchange: Exchange) -> Exchange:
    attempts = [replace(attempt, answer=_outline(attempt.answer)) for attempt in exchange.attempts]
    return replace(exchange, request=msgspec.Raw(b"{}"), attempts=attempts)


def _outline(answer: Answer) -> Answer:
    return Answer(finish_reason=answer.finish_reason)
