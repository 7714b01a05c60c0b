"""Logs: one JSON object a line on stderr, or a readable form when stderr is a terminal.

An event is a fact in the past tense, what belongs to it are keywords. Prompts, answers, keys and
headers are never logged, and tracebacks come without local variables, which hold all of these.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from proxy.log_lines import LogLines

LEVELS = ("debug", "info", "warning", "error")

CLIENT_GONE = 499
"""Status, in logs and records, of a request whose client left before the answer began; nginx's."""


class Facts(msgspec.Struct):
    """What is known so far of one request: its response headers and its log line are made of it."""

    request_id: str
    tenant: str | None = None
    caller: str | None = None
    """Name of the key, or of the token's subject."""
    domain: str | None = None
    match: str | None = None
    """Why this domain: a reason of routing."""
    match_probability: float | None = None
    """How sure the router model was of the domain, 0 to 1; None where it was not asked."""
    assigned: str = ""
    """The side of a running comparison that it was put on."""
    backend: str | None = None
    adapter: str | None = None
    attempts: int = 0
    fallback_reason: str | None = None
    """Code of the failure for which the next backend was asked."""
    cache: str | None = None
    """`hit` or `miss`; None where the answer is not looked for."""
    drifted: list[str] = []
    """Tools whose schema is not the one that the adapter was trained with."""
    limits: dict[str, str] = {}
    """The x-ratelimit headers of the caller's own limits."""
    began: float = msgspec.field(default_factory=time.perf_counter)
    overhead_s: float | None = None
    """Seconds until the answer began that no backend was waited for."""
    confidence: float | None = None
    """That the engine had in the calls of a whole answer, 0 to 1."""
    status: int | None = None
    """What the client has seen; None before the head of the response."""
    error: str | None = None
    """Code of the error that the client was told."""
    outcome: str | None = None
    """An Outcome of protocol.exchange; None for requests that are not recorded."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The x-headrace headers of the response; what is not known is left out."""
        told = (
            ("x-headrace-domain", self.domain),
            ("x-headrace-assigned", self.assigned or None),
            ("x-headrace-backend", self.backend),
            ("x-headrace-adapter", self.adapter),
            ("x-headrace-attempts", str(self.attempts) if self.attempts else None),
            ("x-headrace-fallback-reason", self.fallback_reason),
            ("x-headrace-cache", self.cache),
            ("x-headrace-overhead-ms", _shown(self.overhead_s, 1000, 2)),
            ("x-headrace-confidence", _shown(self.confidence, 1, 4)),
        )
        return [(name, value) for name, value in told if value is not None]

    @property
    def line(self) -> dict[str, object]:
        """The keywords of the log line; what is not known is left out."""
        told = {
            "tenant": self.tenant,
            "caller": self.caller,
            "domain": self.domain,
            "match": self.match,
            "match_probability": self.match_probability and round(self.match_probability, 4),
            "assigned": self.assigned or None,
            "backend": self.backend,
            "adapter": self.adapter,
            "attempts": self.attempts or None,
            "fallback_reason": self.fallback_reason,
            "cache": self.cache,
            "drifted": self.drifted or None,
            "error": self.error,
            "outcome": self.outcome,
        }
        return {name: value for name, value in told.items() if value is not None}


def _shown(number: float | None, factor: float, digits: int) -> str | None:
    return None if number is None else f"{number * factor:.{digits}f}"


def configure(level: str = "info") -> None:
    """Set logging up for the process, once, from `__main__`; libraries' logs join ours."""
    on_terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[*_shared(), *(_terminal() if on_terminal else _json())],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if on_terminal else _lines(),
        cache_logger_on_first_use=True,
    )
    _adopt_libraries(level)


def _lines() -> Callable[..., LogLines]:
    """One writer for all loggers; what is left is written when the process ends."""
    # Not sys.stderr itself: the interpreter flushes that when it ends, and would wait for its lock.
    lines = LogLines(os.fdopen(os.dup(sys.stderr.fileno()), "wb", buffering=0))
    atexit.register(lines.flush)
    return lambda *_: lines


def _shared() -> list[Processor]:
    return [_placed]


request_id: ContextVar[str | None] = ContextVar("headrace_request_id", default=None)
"""The request that is being answered: it is in each line that is logged for it."""


def _placed(logger: object, level: str, event: EventDict) -> EventDict:
    """The event with its level and time, and the request that it belongs to. One step for what
    structlog does in three: each request passes here."""
    event["level"] = "error" if level == "exception" else level
    now = time.time()
    event["timestamp"] = f"{_second(int(now))}.{int(now % 1 * 1e6):06d}Z"
    id = request_id.get()
    if id is not None:
        event.setdefault("request_id", id)
    return event


@lru_cache(maxsize=1)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _terminal() -> list[Processor]:
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]


def _json() -> list[Processor]:
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    rendered = structlog.processors.ExceptionRenderer(tracebacks)

    def encoded(logger: object, level: str, event: EventDict) -> bytes:
        if "exc_info" in event:
            event = rendered(logger, level, event)
        return _encoder.encode(event)

    return [encoded]


_encoder = msgspec.json.Encoder(enc_hook=str)


class _Adopted(logging.Handler):
    """Passes a library's log record on as an event of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def _adopt_libraries(level: str) -> None:
    logging.basicConfig(handlers=[_Adopted()], level=logging.WARNING, force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(getattr(logging, level.upper()))
