"""Traces: a span for each request, and one below it for each attempt, sent by OTLP.

Sources: W3C Trace Context, in and out; OpenTelemetry's semantic conventions for HTTP servers and
for generative AI. What was said is never in a span. The extra `tracing`.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy import trace_context
from proxy.logs import CLIENT_GONE, Facts
from proxy.tracing_settings import TracingSettings

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans and sends them, in a thread of its own and in batches; what it cannot send is
    dropped."""

    def __init__(self, settings: TracingSettings) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": settings.service}),
            sampler=ParentBasedTraceIdRatio(settings.sample),
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, headers=dict(settings.headers))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("headrace")

    def around(self, app: ASGIApp) -> ASGIApp:
        """The same app, each of whose requests is traced."""
        return _Traced(app, self._tracer)

    def close(self) -> None:
        """Send what is left; blocks for some seconds where nobody takes it."""
        self._provider.shutdown()


class _Traced:
    """Pure ASGI, outermost."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        span = self._tracer.start_span(
            f"{scope['method']} {_route(scope['path'])}",
            context=_PROPAGATOR.extract(named),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.path": scope["path"]},
        )
        trace_context.request.set(_Request(self._tracer, span))
        try:
            await self._app(scope, receive, send)
        finally:
            _tell(span, scope["state"]["facts"])
            span.end()


def _route(path: str) -> str:
    """What is the same for many requests: ids in paths would make as many names."""
    return "/".join(path.split("/")[:4])


def _tell(span: Span, facts: Facts) -> None:
    told = {
        "http.response.status_code": facts.status or CLIENT_GONE,
        "error.type": facts.error,
        "headrace.request_id": facts.request_id,
        "headrace.tenant": facts.tenant,
        "headrace.domain": facts.domain,
        "headrace.match": facts.match,
        "headrace.fallback_reason": facts.fallback_reason,
    }
    span.set_attributes({name: value for name, value in told.items() if value is not None})
    if (facts.status or 0) >= 500:
        span.set_status(Status(StatusCode.ERROR))


class _Request:
    """See trace_context.RequestTrace."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._context = trace.set_span_in_context(span)

    def attempt(self, kind: str, backend: str, adapter: str | None) -> _Attempt:
        told: dict[str, str] = {
            "gen_ai.operation.name": "chat",
            "headrace.backend": backend,
            "headrace.attempt": kind,
        }
        if adapter is not None:
            told["headrace.adapter"] = adapter
        span = self._tracer.start_span(
            f"{kind} {backend}", context=self._context, kind=SpanKind.CLIENT, attributes=told
        )
        return _Attempt(span)


class _Attempt:
    """See trace_context.AttemptSpan."""

    def __init__(self, span: Span) -> None:
        self.outgoing: dict[str, str] = {}
        self._span = span
        _PROPAGATOR.inject(self.outgoing, trace.set_span_in_context(span))

    def end(self, outcome: str, reason: str | None, tokens: tuple[int, int] | None) -> None:
        self._span.set_attribute("headrace.outcome", outcome)
        if tokens is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", tokens[0])
            self._span.set_attribute("gen_ai.usage.output_tokens", tokens[1])
        if outcome != "completed":
            self._span.set_attribute("error.type", reason or outcome)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
