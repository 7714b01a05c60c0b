"""The trace that a request belongs to, as it goes through the proxy and on to backends.

Source: W3C Trace Context. Nothing is here but two variables of the request's context; what makes
spans (tracing.py) puts them there, if there is anything that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol


class AttemptSpan(Protocol):
    """An attempt that is under way."""

    outgoing: dict[str, str]
    """Headers that say to a backend which span its own belong to."""

    def end(self, outcome: str, reason: str | None, tokens: tuple[int, int] | None) -> None:
        """It is over; `tokens` of prompt and answer, where the backend is one that we generate
        with."""


class RequestTrace(Protocol):
    """A request whose attempts are traced."""

    def attempt(self, kind: str, backend: str, adapter: str | None) -> AttemptSpan:
        """An attempt that begins now."""


request: ContextVar[RequestTrace | None] = ContextVar("headrace_request_trace", default=None)
attempt: ContextVar[AttemptSpan | None] = ContextVar("headrace_attempt_span", default=None)


def begin(kind: str, backend: str, adapter: str | None) -> AttemptSpan | None:
    """The span of an attempt of the request at hand; None where nothing is traced."""
    trace = request.get()
    if trace is None:
        return None
    span = trace.attempt(kind, backend, adapter)
    attempt.set(span)
    return span


def outgoing() -> Mapping[str, str]:
    """Headers that say which span the attempt at hand is; none where nothing is traced."""
    span = attempt.get()
    return {} if span is None else span.outgoing
