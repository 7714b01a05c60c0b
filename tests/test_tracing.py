"""A real OTLP receiver on a real socket gets the spans."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from tests import scripted
from tests.scripted import ScriptedCloud, completion
from tests.serving import listening, serving, settings
from tests.wire import ask, body

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Receiver:
    """What an OpenTelemetry collector takes, kept."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[ExportTraceServiceRequest] = []

    async def take(self, request: Request) -> Response:
        self.sent.append(ExportTraceServiceRequest.FromString(await request.body()))
        return Response(b"", media_type="application/x-protobuf")

    @property
    def spans(self):
        return [
            span
            for one in self.sent
            for resource in one.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    async with listening(Router([Route("/v1/traces", it.take, methods=["POST"])])) as url:
        it.url = f"{url}/traces"
        yield it


def attributes(span) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def test_each_attempt_is_a_span_below_the_request_s(cloud: ScriptedCloud, receiver: Receiver):
    said = scripted.answer(completion({"role": "assistant", "content": "a secret answer"}))
    cloud.plays(said)
    # The first backend is nowhere, the second one answers.
    tracing = f"tracing: {{endpoint: '{receiver.url}'}}"
    config = settings("away", f"cloud={cloud.base_url}", extra=tracing)
    async with serving(config) as url:
        answer = await ask(url, {"traceparent": f"00-{TRACE}-{PARENT}-01"})

    request, first, second = sorted(receiver.spans, key=lambda span: span.start_time_unix_nano)
    assert answer.status == 200
    assert {span.trace_id.hex() for span in (request, first, second)} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert first.parent_span_id == second.parent_span_id == request.span_id
    assert (first.name, second.name) == ("primary away", "fallback cloud")
    assert attributes(first)["error.type"] == "backend_unavailable"
    assert attributes(second)["headrace.outcome"] == "completed"
    assert attributes(request)["http.response.status_code"] == 200
    sent_on = cloud.requests[0].headers["traceparent"]
    assert sent_on == f"00-{TRACE}-{second.span_id.hex()}-01"
    whole = b"".join(one.SerializeToString() for one in receiver.sent)
    assert b"secret answer" not in whole
    assert body()["messages"][0]["content"].encode() not in whole


async def test_what_the_client_does_not_sample_is_not_sent(
    cloud: ScriptedCloud, receiver: Receiver
):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "x"})))
    config = settings(f"cloud={cloud.base_url}", extra=f"tracing: {{endpoint: '{receiver.url}'}}")
    async with serving(config) as url:
        await ask(url, {"traceparent": f"00-{TRACE}-{PARENT}-00"})

    assert receiver.spans == []


async def test_collector_that_is_away_is_no_client_s_problem(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "x"})))
    extra = "tracing: {endpoint: 'http://127.0.0.1:1/v1/traces'}"
    async with serving(settings(f"cloud={cloud.base_url}", extra=extra)) as url:
        answer = await ask(url)

    assert answer.status == 200


async def test_without_settings_nothing_is_added_to_what_a_cloud_gets(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "x"})))
    async with serving(settings(f"cloud={cloud.base_url}")) as url:
        await ask(url, {"traceparent": f"00-{TRACE}-{PARENT}-01"})

    assert "traceparent" not in cloud.requests[0].headers
