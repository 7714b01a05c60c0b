"""What the client sent arrives, what the cloud says comes back, and errors are ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from proxy.backends.base import Ask
from proxy.backends.openai import OpenAIBackend
from proxy.errors import (
    BackendError,
    BackendOverloaded,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    BadRequest,
    ContextTooLong,
)
from proxy.protocol.openai import parse_request
from tests.scripted import (
    KEPT,
    Cut,
    Pause,
    ScriptedCloud,
    Until,
    answer,
    chunk,
    completion,
    error,
    head,
    stream,
    usage_chunk,
)

KEY = "sk-s3cret"
BODY = b'{ "model":"gpt-4o", "top_p":1e0,"messages":[{"role":"user","content":"\\u0068i"}],"x":{} }'
STREAM = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true}'
HI = completion({"role": "assistant", "content": "hi"})


@pytest.fixture
async def backend(cloud: ScriptedCloud) -> AsyncIterator[OpenAIBackend]:
    made = OpenAIBackend("cloud", base_url=cloud.base_url, api_key=KEY, silence_s=1, answer_s=5)
    yield made
    await made.aclose()


def ask(body: bytes = BODY) -> Ask:
    return Ask(parse_request(body), body)


async def content(backend: OpenAIBackend, body: bytes = BODY) -> bytes:
    async with backend.ask(ask(body)) as reply:
        return b"".join([piece async for piece in reply.content])


async def test_the_body_arrives_byte_for_byte(cloud: ScriptedCloud, backend: OpenAIBackend) -> None:
    cloud.plays(answer(HI))

    await content(backend)

    (request,) = cloud.requests
    assert request.body == BODY
    assert request.target == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"


async def test_a_mapped_model_is_all_that_changes(cloud: ScriptedCloud) -> None:
    cloud.plays(answer(HI))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url + "/", models={"gpt-4o": "qwen"})

    await content(backend)
    await backend.aclose()

    assert cloud.requests[0].body == (
        b'{"model":"qwen","top_p":1e0,"messages":[{"role":"user","content":"\\u0068i"}],"x":{}}'
    )
    assert "authorization" not in cloud.requests[0].headers


async def test_an_answer_comes_back_byte_for_byte(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    odd = b'{ "id": "x",\n "unknown": 1e2 }\n'
    cloud.plays(answer(odd))

    assert await content(backend) == odd


async def test_a_piece_of_a_stream_comes_back_when_it_is_there(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    read = asyncio.Event()
    cloud.plays(*stream(b"data: 1\n\nda", Until(read), b"ta: 2\n\n"))

    async with backend.ask(ask(STREAM)) as reply:
        pieces = aiter(reply.content)
        first = await anext(pieces)
        read.set()
        rest = [piece async for piece in pieces]

    assert first == b"data: 1\n\nda"
    assert b"".join(rest) == b"ta: 2\n\ndata: [DONE]\n\n"


async def test_only_headers_that_clients_read_come_back(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    told = (
        "X-RateLimit-Remaining-Tokens: 5",
        "openai-processing-ms: 7",
        "openai-organization: acme",
        "x-request-id: req_cloud",
        "set-cookie: a=b",
        "server: x",
    )
    cloud.plays(answer(HI, *told))

    async with backend.ask(ask()) as reply:
        headers = reply.headers

    assert headers == {
        "content-type": "application/json",
        "x-ratelimit-remaining-tokens": "5",
        "openai-processing-ms": "7",
        "openai-organization": "acme",
        "x-upstream-request-id": "req_cloud",
    }


async def test_connections_are_used_again(cloud: ScriptedCloud, backend: OpenAIBackend) -> None:
    cloud.plays(answer(HI, KEPT))

    await content(backend)
    await content(backend)

    assert (len(cloud.requests), cloud.connections) == (2, 1)


async def test_a_connection_with_a_rest_of_an_answer_is_not(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(answer(HI, KEPT)[:-5], Pause(60))
    cloud.plays(answer(HI))

    async with backend.ask(ask()):
        pass
    await content(backend)

    assert cloud.connections == 2


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_a_refusal_is_told_in_the_cloud_s_words(
    cloud: ScriptedCloud, backend: OpenAIBackend, status: int
) -> None:
    about = {"message": "too long", "type": "invalid", "param": "messages", "code": "too_long"}
    cloud.plays(answer({"error": about}, status=status))

    with pytest.raises(BackendRefused) as raised:
        await content(backend)

    told = raised.value
    assert isinstance(told, BadRequest)
    assert not isinstance(told, BackendError)
    assert (told.status, told.message, told.type) == (status, "too long", "invalid")
    assert (told.param, told.code) == ("messages", "too_long")


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"object":"error","message":"no","type":"t","code":400}', "no", "400"),
        (b'{"error":"no"}', "no", None),
        (b'{"detail":"no"}', "the backend answered 400", None),
        (b"<html>", "the backend answered 400", None),
        (b"", "the backend answered 400", None),
        (b"[" * 100_000, "the backend answered 400", None),
    ],
)
async def test_an_error_in_another_form_is_told_as_well_as_can_be(
    cloud: ScriptedCloud, backend: OpenAIBackend, body: bytes, message: str, code: str | None
) -> None:
    cloud.plays(answer(body, status=400))

    with pytest.raises(BackendRefused) as raised:
        await content(backend)

    assert (raised.value.message, raised.value.code) == (message, code)


@pytest.mark.parametrize("status", [301, 307, 401, 402, 403, 500, 502, 503, 529])
async def test_a_cloud_that_cannot_serve_us_is_unavailable(
    cloud: ScriptedCloud, backend: OpenAIBackend, status: int
) -> None:
    cloud.plays(error(status, f"bad key {KEY}", None, "location: http://127.0.0.1:1/"))

    with pytest.raises(BackendUnavailable, match=str(status)) as raised:
        await content(backend)

    assert KEY not in str(raised.value)


async def test_a_limit_is_told_with_the_time_to_come_back(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(error(429, "slow down", None, "Retry-After: 7", "retry-after-ms: 6500", "x-a: b"))

    with pytest.raises(BackendOverloaded) as raised:
        await content(backend)

    assert raised.value.headers == {"retry-after": "7", "retry-after-ms": "6500"}


async def test_a_limit_without_a_time_is_not_to_be_retried(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(error(429, "no quota", "insufficient_quota"))

    with pytest.raises(BackendOverloaded) as raised:
        await content(backend)

    assert raised.value.headers == {"x-should-retry": "false"}


async def test_a_timeout_that_the_cloud_reports_is_a_timeout(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(error(408, "slow", None))

    with pytest.raises(BackendTimeout):
        await content(backend)


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    backend = OpenAIBackend("cloud", base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")

    with pytest.raises(BackendUnavailable):
        await content(backend)

    await backend.aclose()


@pytest.mark.parametrize(
    "script",
    [
        [b"garbage\r\n\r\n"],
        [b""],
        [Cut()],
        [head(200, "content-type: application/json", "content-length: 100") + b"{"],
        [answer(b"<html>", content_type="text/html")],
        stream(b"data: 1\n\n", done=False),
        stream(b"data: 1\n\n", Cut(), done=False),
        stream(chunk({"content": "hi"}), b"", done=False),
        [head(200, "content-type: text/event-stream") + b"data: 1\n\n"],
    ],
)
async def test_a_broken_answer_is_unavailable(
    cloud: ScriptedCloud, backend: OpenAIBackend, script: list[bytes]
) -> None:
    cloud.plays(*script)

    with pytest.raises(BackendUnavailable):
        await content(backend, STREAM)


async def test_a_stream_without_done_is_whole_when_it_says_how_it_finished(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    *steps, _ = stream(chunk({"content": "hi"}), chunk({}, "stop"), usage_chunk(1, 1))
    cloud.plays(*steps[:-1], b"0\r\n\r\n")

    assert b"stop" in await content(backend, STREAM)


@pytest.mark.parametrize("script", [[Pause(5)], stream(Pause(5)), stream(b"data: 1\n\n", Pause(5))])
async def test_a_silent_stream_is_given_up(
    cloud: ScriptedCloud, backend: OpenAIBackend, script: list[bytes]
) -> None:
    cloud.plays(*script)

    with pytest.raises(BackendTimeout):
        await content(backend, STREAM)


async def test_a_stream_may_last_as_long_as_it_is_not_silent(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(*stream(*[b"data: 1\n\n", Pause(0.3)] * 5))

    assert (await content(backend, STREAM)).count(b"data: 1") == 5


async def test_a_whole_answer_may_be_silent_for_longer(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(Pause(1.5), answer(HI))

    assert b"hi" in await content(backend)


# ---------------------------------------------------------------- leaving


async def test_leaving_in_the_middle_drops_the_call(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(*stream(b"data: 1\n\n", Pause(60)))

    async with backend.ask(ask(STREAM)) as reply:
        await anext(aiter(reply.content))

    async with asyncio.timeout(1):
        await cloud.abandoned.wait()


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_cancel_before_the_first_byte_drops_the_call(
    cloud: ScriptedCloud, backend: OpenAIBackend, body: bytes
) -> None:
    cloud.plays(Pause(60))
    asking = asyncio.create_task(content(backend, body))
    await cloud.arrived.wait()

    asking.cancel()

    async with asyncio.timeout(1):
        await cloud.abandoned.wait()


async def test_a_closed_backend_is_not_ready_and_answers_nobody(backend: OpenAIBackend) -> None:
    assert await backend.ready()

    await backend.aclose()

    assert not await backend.ready()
    with pytest.raises(BackendUnavailable):
        await content(backend)


async def test_the_key_is_in_no_log_and_no_error(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    backend = OpenAIBackend("cloud", base_url=url, api_key=KEY)

    with capture_logs() as logs, pytest.raises(BackendError) as raised:
        await content(backend)
    await backend.aclose()

    assert KEY not in str(raised.value) + str(logs)


async def test_prompt_that_is_too_long_here_may_fit_elsewhere(
    cloud: ScriptedCloud, backend: OpenAIBackend
) -> None:
    cloud.plays(error(400, "At most 8192 tokens.", "context_length_exceeded"))

    with pytest.raises(ContextTooLong, match="At most 8192 tokens") as raised:
        await content(backend)

    assert (raised.value.status, raised.value.code) == (400, "context_length_exceeded")
    assert raised.value.type == "invalid_request_error"
