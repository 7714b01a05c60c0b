"""What an answer said: put together from an engine's events, or from a cloud's bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import get_args

from proxy import sse
from proxy.backends.base import Call, Event, Finish, Text
from proxy.backends.confidence import Confidence
from proxy.protocol import loose
from proxy.protocol.exchange import Answer, Outcome
from proxy.protocol.openai import FinishReason, FunctionCall, ToolCall, Usage

_FINISH: dict[str, FinishReason] = {reason: reason for reason in get_args(FinishReason)}


@dataclass
class _MergedCall:
    id: str = ""
    type: str = "function"
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass
class Heard:
    """An answer put together from events or from a cloud's bytes, as far as it went.

    Only the first choice is kept: `n` above 1 asks for variants, of which one is the answer.
    """

    id: str | None = None
    texts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    calls: dict[int, _MergedCall] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: Usage | None = None
    mean_logprob: float | None = None
    confidence: Confidence | None = None
    has_error: bool = False
    is_unreadable: bool = False
    is_cut: bool = False

    def answer(self) -> Answer:
        """The answer; partial when it was cut short."""
        calls = [
            ToolCall(call.id, FunctionCall(call.name, "".join(call.arguments)), call.type)
            for _, call in sorted(self.calls.items())
        ]
        return Answer(
            text="".join(self.texts),
            refusal="".join(self.refusals),
            tool_calls=calls,
            finish_reason=self.finish_reason,
        )

    def events(self) -> list[Event]:
        """The whole answer as a local engine would give it; [] for one that is not whole."""
        if self.judged()[0] != "completed":
            return []
        text, calls = "".join(self.texts), self.answer().tool_calls
        reason = "tool_calls" if calls else _FINISH.get(self.finish_reason or "", "stop")
        finish = Finish(
            reason=reason,
            usage=self.usage or Usage.of(0, 0),
            mean_logprob=self.mean_logprob,
            confidence=self.confidence,
        )
        return [*([Text(text)] if text else []), *map(Call, calls), finish]

    def judged(self) -> tuple[Outcome, str | None]:
        """`completed` when this is a whole answer, else what kept it from being one."""
        if self.has_error:
            return "upstream_aborted", "error_in_answer"
        if self.is_cut:
            return "failed", "too_large_to_record"
        if self.is_unreadable:
            return "failed", "unreadable_answer"
        if self.finish_reason is None:
            return "upstream_aborted", "unfinished"
        return "completed", None

    def add_events(self, events: Iterable[Event]) -> None:
        """What a local backend said."""
        for event in events:
            match event:
                case Text(text):
                    self.texts.append(text)
                case Call(call):
                    name, arguments = call.function.name, call.function.arguments
                    merged = _MergedCall(call.id, call.type, name, [arguments])
                    self.calls[len(self.calls)] = merged
                case Finish():
                    self.finish_reason = "tool_calls" if self.calls else event.reason
                    self.usage = event.usage
                    self.mean_logprob = event.mean_logprob
                    self.confidence = event.confidence

    def add_stream(self, pieces: Iterable[bytes]) -> None:
        """What a cloud streamed."""
        decoder = sse.EventDecoder()
        try:
            for piece in pieces:
                for data in decoder.feed(piece):
                    if data.strip() != sse.DONE:
                        self.add_json(data)
        except sse.EventTooLarge:
            self.is_unreadable = True

    def add_json(self, data: bytes) -> None:
        """What one chunk of a stream, or a completion, says."""
        try:
            chunk = loose.read(data)
        except (ValueError, RecursionError):
            self.is_unreadable = True
            return
        self.id = chunk.id or self.id
        self.usage = chunk.usage or self.usage
        self.has_error |= chunk.error is not None
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._add_choice(choice)

    def _add_choice(self, choice: loose.Choice) -> None:
        self.finish_reason = choice.finish_reason or self.finish_reason
        said = choice.delta or choice.message
        if said is None:
            return
        self.texts.append(said.content or "")
        self.refusals.append(said.refusal or "")
        for position, call in enumerate(said.tool_calls or ()):
            self._add_call(position if call.index is None else call.index, call)
        if said.function_call is not None:
            self._add_call(0, loose.CallPart(function=said.function_call))

    def _add_call(self, index: int, delta: loose.CallPart) -> None:
        merged = self.calls.setdefault(index, _MergedCall())
        merged.id = merged.id or delta.id or ""
        merged.type = delta.type or merged.type
        said = delta.function or delta.custom
        if said is not None:
            merged.name = merged.name or said.name or ""
            merged.arguments.append(said.arguments or said.input or "")
