"""What happened, in numbers: counters and histograms, fed from finished requests.

A request pays for putting two things into a queue: what was told of it (Facts) and what was tried
for it (Recording). A thread counts them soon after, and at the latest when somebody reads. Labels
are names of routes.yaml, adapters' ids and codes of ours, never what a client or a cloud made up.

Names are OpenTelemetry's where it has one (Semantic conventions for generative AI metrics, status
"development"), written as Prometheus writes them: dots as underscores, the unit at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.registry import Collector

from proxy.counts import Counter, Histogram
from proxy.errors import ProxyError
from proxy.logs import CLIENT_GONE, Facts
from proxy.protocol.exchange import Attempt, Exchange
from proxy.recording import Recording

log = structlog.get_logger(__name__)

MAX_WAITING = 1000
"""Requests that may wait to be counted; one more is counted by whoever brings it, so that neither
memory grows nor a number is lost."""
_PAUSE_S = 0.1
"""Seconds between two rounds of counting: what comes meanwhile is counted at once."""

_ATTEMPT = ("domain", "backend", "adapter")
_GEN_AI = (*_ATTEMPT, "gen_ai_operation_name", "gen_ai_provider_name")
_OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_FIRST_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
_TOKENS = tuple(4.0**power for power in range(14))
_OWN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

_Finished: TypeAlias = "Facts | Recording"


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may read /metrics."""

    public: bool = False
    """Whether nobody needs a key for it. Default no: a key with `admin: true`, where there are
    keys, since the numbers tell of all tenants' traffic."""


class Metrics(Collector):
    """Counts finished requests. Made once."""

    def __init__(self, providers: Mapping[str, str]) -> None:
        """`providers`: backend → what OpenTelemetry calls its kind."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._told: list[Counter | Histogram] = []
        self._providers = dict(providers)
        self._codes = frozenset(_codes(ProxyError))
        self._waiting: deque[_Finished] = deque()
        self._brought = asyncio.Event()
        self._counting = threading.Lock()
        self._of_requests()
        self._of_attempts()
        self.registry.register(self)

    def know(self, providers: Mapping[str, str]) -> None:
        """From now on these are the backends: the settings have changed, what was counted stays."""
        self._providers = dict(providers)

    def put(self, finished: _Finished) -> None:
        """Count this one soon. It must be over: what is noted of it later may be missed."""
        self._waiting.append(finished)
        self._brought.set()
        if len(self._waiting) > MAX_WAITING:
            self.drain()

    async def run(self) -> None:
        """Count what is brought until cancelled."""
        while True:
            await self._brought.wait()
            self._brought.clear()
            await asyncio.to_thread(self.drain)
            await asyncio.sleep(_PAUSE_S)

    def collect(self) -> Iterator[Metric]:
        """What was counted so far; for the registry."""
        with self._counting:
            told = [one.told() for one in self._told]
        yield from told

    def drain(self) -> None:
        """Count all that waits; blocks, for as long as reading the answers takes."""
        with self._counting:
            while self._waiting:
                finished = self._waiting.popleft()
                try:
                    self._count(finished)
                except Exception:
                    # One that cannot be read must not end the task that counts the others.
                    log.exception("request_not_counted")

    def _count(self, finished: _Finished) -> None:
        if isinstance(finished, Facts):
            self._count_request(finished)
        else:
            self._count_exchange(finished.exchange())

    # ------------------------------------------------------------ requests

    def _of_requests(self) -> None:
        self._requests = self._counter(
            "headrace_requests", "Requests answered", "domain", "status", "error"
        )
        self._matches = self._counter(
            "headrace_matches", "Requests placed, by why this domain", "domain", "match"
        )
        self._fallbacks = self._counter(
            "headrace_fallbacks",
            "Requests answered by another backend than the plan's first",
            *("domain", "backend", "reason"),
        )
        self._lookups = self._counter(
            "headrace_cache_lookups", "Requests looked for in the cache", "domain", "result"
        )
        self._drifted = self._counter(
            "headrace_drifted_requests",
            "Requests with a tool whose schema is not the one that the adapter was trained with",
            "domain",
        )
        self._own = self._histogram(
            "headrace_own_seconds",
            "Seconds until the answer began in which no backend was waited for",
            _OWN_SECONDS,
            "domain",
        )

    def _count_request(self, facts: Facts) -> None:
        if facts.domain is None and facts.error is None:
            return
        domain = facts.domain or ""
        status = facts.status or CLIENT_GONE
        self._requests.add(domain, str(status), self._known(facts.error))
        if facts.match is not None:
            self._matches.add(domain, facts.match)
        if facts.fallback_reason is not None:
            reason = _without_field(facts.fallback_reason)
            self._fallbacks.add(domain, facts.backend or "", reason)
        if facts.cache is not None:
            self._lookups.add(domain, facts.cache)
        if facts.drifted:
            self._drifted.add(domain)
        if facts.overhead_s is not None:
            self._own.observe(facts.overhead_s, domain)

    def _known(self, code: str | None) -> str:
        """An error's code if it is one of ours; clouds write what they like."""
        if code is None:
            return ""
        return code if code in self._codes else "other"

    # ------------------------------------------------------------ attempts

    def _of_attempts(self) -> None:
        self._attempts = self._counter(
            "headrace_attempts", "Tries of backends", *_ATTEMPT, "kind", "outcome", "reason"
        )
        self._invalid = self._counter(
            "headrace_validation_failures", "Answers that were not valid", *_ATTEMPT, "reason"
        )
        self._repairs = self._counter(
            "headrace_repairs", "Answers put right, by what was wrong in form", *_ATTEMPT, "code"
        )
        self._hedges = self._counter(
            "headrace_hedges", "Second answers started for a slow first", "domain", "result"
        )
        self._operations = self._histogram(
            "gen_ai_client_operation_duration_seconds",
            "Seconds that a backend was asked for",
            _SECONDS,
            *(*_GEN_AI, "error_type"),
        )
        self._queued = self._histogram(
            "headrace_queued_seconds",
            "Seconds that a request waited for a place on an engine's server",
            _FIRST_SECONDS,
            *_ATTEMPT,
        )
        self._tokens = self._histogram(
            "gen_ai_client_token_usage",
            "Tokens that a backend reported",
            _TOKENS,
            *(*_GEN_AI, "gen_ai_token_type"),
        )
        self._durations = self._histogram(
            "gen_ai_server_request_duration_seconds",
            "Seconds from a request to the end of its answer",
            _SECONDS,
            *(*_GEN_AI, "error_type"),
        )
        self._firsts = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Seconds from a request to the first piece of the answer that it got",
            _FIRST_SECONDS,
            *_GEN_AI,
        )

    def _count_exchange(self, exchange: Exchange) -> None:
        for attempt in exchange.attempts:
            self._count_attempt(attempt, exchange)
        if not exchange.attempts:
            return
        last = exchange.attempts[-1]
        labels = self._labels(last, exchange)
        self._durations.observe(exchange.total_s, *labels, _error(last))
        if last.first_byte_s is not None and last.outcome == "completed":
            began = last.started_at + last.first_byte_s - exchange.started_at
            self._firsts.observe(max(0.0, began), *labels)

    def _count_attempt(self, attempt: Attempt, exchange: Exchange) -> None:
        labels = self._labels(attempt, exchange)
        who = labels[: len(_ATTEMPT)]
        reason = attempt.reason or ""
        self._attempts.add(*who, attempt.kind, attempt.outcome, reason)
        self._operations.observe(attempt.total_s, *labels, _error(attempt))
        if attempt.queued_s is not None:
            self._queued.observe(attempt.queued_s, *who)
        if attempt.outcome == "invalid":
            self._invalid.add(*who, reason)
        for code in attempt.repairs:
            self._repairs.add(*who, code)
        if attempt.kind == "hedge":
            won = attempt is exchange.attempts[-1]
            self._hedges.add(exchange.domain, "won" if won else "lost")
        if attempt.usage is not None:
            self._tokens.observe(attempt.usage.prompt_tokens, *labels, "input")
            self._tokens.observe(attempt.usage.completion_tokens, *labels, "output")

    def _labels(self, attempt: Attempt, exchange: Exchange) -> tuple[str, ...]:
        return (
            exchange.domain,
            attempt.backend,
            attempt.adapter or "",
            _OPERATIONS.get(exchange.endpoint, "other"),
            self._providers.get(attempt.backend, "headrace"),
        )

    # ------------------------------------------------------------ making them

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        counter = Counter(name, about, labels)
        self._told.append(counter)
        return counter

    def _histogram(
        self, name: str, about: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        histogram = Histogram(name, about, buckets, labels)
        self._told.append(histogram)
        return histogram


def _error(attempt: Attempt) -> str:
    return "" if attempt.outcome == "completed" else attempt.reason or attempt.outcome


def _without_field(reason: str) -> str:
    """The reason without the field's name in `unsupported_…`, which a client may have made up."""
    return "unsupported" if reason.startswith("unsupported_") else reason


def _codes(kind: type[ProxyError]) -> Iterator[str]:
    yield kind.code or kind.type
    for more in kind.__subclasses__():
        yield from _codes(more)
