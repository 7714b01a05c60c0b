"""Whatever is no chat reaches the cloud as it came, but for what must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncAzureOpenAI, AsyncOpenAI

from proxy.backends.openai import OpenAIBackend
from proxy.endpoints import PATIENCE
from proxy.endpoints.passthrough import _target
from proxy.errors import NotFound
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.scripted import Cut, Pause, ScriptedCloud, Until, head, stream
from tests.serving import Engine, serving_with, settings
from tests.wire import cloud_backend, raw, send

OK = scripted.answer({"object": "list", "data": []})
KEY = "0123456789abcdef"
SECRETS = {
    "authorization": f"Bearer {KEY}",
    "cookie": "a=b",
    "x-headrace-adapter": "base",
    "openai-organization": "org-client",
    "connection": "keep-alive, x-hop",
    "x-hop": "1",
    "te": "trailers",
    "x-forwarded-for": "10.0.0.1",
}


@pytest.fixture
async def url(cloud: ScriptedCloud) -> AsyncIterator[str]:
    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        yield url


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/files?limit=2&after=a%20b", "/v1/files?limit=2&after=a%20b"),
        ("DELETE", "/models/ft:gpt-4o:acme::x%20y", "/v1/models/ft:gpt-4o:acme::x%20y"),
        ("GET", "/chat/completions", "/v1/chat/completions"),
        ("GET", "/batches/", "/v1/batches"),
    ],
)
async def test_method_path_and_query_arrive_as_they_were(
    cloud: ScriptedCloud, url: str, method: str, path: str, target: str
):
    cloud.plays(OK)

    response = await send(method, url + path)

    assert response.status == 200
    assert [(request.method, request.target) for request in cloud.requests] == [(method, target)]


async def test_encoding_of_a_path_is_left_as_it_is(cloud: ScriptedCloud, url: str):
    cloud.plays(OK)
    target = b"/v1/files/a%2Db%7e?x=a%2Fb%3D&y=%41"

    await raw(url, b"GET " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    assert cloud.requests[0].target == target.decode()


async def test_only_headers_meant_for_the_cloud_arrive(cloud: ScriptedCloud):
    cloud.plays(OK)
    wanted = {"openai-beta": "assistants=v2", "idempotency-key": "1", "range": "bytes=0-9"}
    backend = OpenAIBackend("cloud", base_url=cloud.base_url, api_key="sk-cloud")

    async with serving_with(settings("cloud"), backend) as url:
        await send("GET", f"{url}/threads", headers={**SECRETS, **wanted, "accept": "*/*"})

    headers = cloud.requests[0].headers
    assert headers.pop("host")
    assert headers == wanted | {
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-cloud",
        "content-type": "application/json",
    }


async def test_cloud_s_headers_come_back_but_for_cookies(cloud: ScriptedCloud, url: str):
    told = ("set-cookie: a=b", "etag: x", "x-ratelimit-limit-requests: 9", "openai-version: 1")
    cloud.plays(scripted.answer(b"%PDF", *told, content_type="application/pdf"))

    response = await send("GET", f"{url}/files/file-1/content")

    kept = ("content-type", "content-length", "etag", "x-ratelimit-limit-requests")
    assert [response.headers[name] for name in kept] == ["application/pdf", "4", "x", "9"]
    assert "set-cookie" not in response.headers
    assert (response.headers["x-headrace-backend"], response.content) == ("cloud", b"%PDF")


# ---------------------------------------------------------------- bodies


async def test_official_client_uploads_a_file(cloud: ScriptedCloud, url: str):
    uploaded = {
        "id": "file-1",
        "object": "file",
        "bytes": 5,
        "created_at": 1,
        "filename": "a.jsonl",
        "purpose": "batch",
        "status": "uploaded",
    }
    cloud.plays(scripted.answer(uploaded))

    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    file = await client.files.create(file=("a.jsonl", b"hello"), purpose="batch")

    assert file.id == "file-1"
    assert cloud.requests[0].headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'filename="a.jsonl"' in cloud.requests[0].body
    assert b'name="purpose"\r\n\r\nbatch' in cloud.requests[0].body


async def test_upload_arrives_while_it_is_sent_and_is_answered_while_it_is_received(
    cloud: ScriptedCloud, url: str
):
    read = asyncio.Event()
    cloud.plays(*stream(b"data: 1\n\n", Until(read), b"data: 2\n\n"))
    sent: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a" * 100_000, b"b" * 100_000):
            sent.append(piece)
            yield piece

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/audio/speech", data=pieces()) as answer,
    ):
        first = await answer.content.readuntil(b"\n\n")
        read.set()
        rest = await answer.read()

    assert cloud.requests[0].body == b"".join(sent)
    assert cloud.requests[0].headers["transfer-encoding"] == "chunked"
    assert (first, rest) == (b"data: 1\n\n", b"data: 2\n\ndata: [DONE]\n\n")


async def test_upload_that_takes_its_time_arrives_whole(cloud: ScriptedCloud, url: str):
    cloud.plays(OK)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            yield piece
            # Longer than a request goes without somebody who watches for its client leaving.
            await asyncio.sleep(2 * PATIENCE)

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/files", data=pieces()) as answer,
    ):
        assert answer.status == 200

    assert cloud.requests[0].body == b"abc"


async def test_body_above_the_limit_is_refused_whether_or_not_it_says_so(cloud: ScriptedCloud):
    cloud.plays(OK)
    small = settings("cloud", extra="limits: {max_upload_mib: 0.1}")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"a" * 10_000

    async with serving_with(small, cloud_backend(cloud)) as url:
        told = await send("POST", f"{url}/files", b"a" * 200_000)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/files", data=pieces()) as untold,
        ):
            error = (await untold.json())["error"]

    assert (told.status, untold.status) == (413, 413)
    assert "max_upload_mib" in error["message"]


async def test_upload_that_stops_coming_is_given_up(cloud: ScriptedCloud):
    cloud.plays(OK)
    impatient = settings("cloud", extra="limits: {deadline_s: 0.2}")

    async with serving_with(impatient, cloud_backend(cloud)) as url:
        response = await raw(
            url,
            b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close"
            b"\r\n\r\nabc",
        )

    assert response.status == 408
    assert response.json["error"]["code"] == "request_timeout"


# ---------------------------------------------------------------- clients that leave, clouds too


async def test_client_that_leaves_stops_the_cloud(cloud: ScriptedCloud):
    cloud.plays(Pause(60))
    sink = MemorySink()

    async with serving_with(settings("cloud"), cloud_backend(cloud), sink=sink) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await send("POST", f"{url}/images/generations", b"{}")
        async with asyncio.timeout(1):
            await cloud.abandoned.wait()

    assert sink.exchanges[0].outcome == "client_aborted"


async def test_client_that_leaves_while_it_uploads_is_no_error(cloud: ScriptedCloud):
    cloud.plays(OK)
    sink = MemorySink()

    async with serving_with(settings("cloud"), cloud_backend(cloud), sink=sink) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        await writer.drain()
        writer.close()
        response = await send("GET", f"{url}/models")

    assert response.status == 200
    assert cloud.requests == []


async def test_stream_that_breaks_off_ends_with_an_error_event(cloud: ScriptedCloud, url: str):
    cloud.plays(*stream(b"data: 1\n\n", Cut(), done=False))

    response = await send("POST", f"{url}/audio/speech", b"{}")

    assert response.content.startswith(b'data: 1\n\ndata: {"error":')
    assert b"[DONE]" not in response.content


async def test_file_that_breaks_off_is_not_taken_for_whole(cloud: ScriptedCloud, url: str):
    cloud.plays(head(200, "content-type: text/plain", "content-length: 100") + b"half", Cut())

    with pytest.raises(aiohttp.ClientPayloadError):
        await send("GET", f"{url}/files/file-1/content")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (scripted.error(404, "no such file", "not_there"), 404, "not_there"),
        (scripted.error(429, "slow down", None, "retry-after: 7"), 429, "rate_limit_exceeded"),
        (scripted.error(401, "bad key sk-cl...", "invalid_api_key"), 502, "backend_unavailable"),
        (scripted.answer(b"<html>", status=503), 502, "backend_unavailable"),
    ],
)
async def test_cloud_s_errors_come_back_in_openai_s_form(
    cloud: ScriptedCloud, url: str, answer: bytes, status: int, code: str
):
    cloud.plays(answer)

    response = await send("GET", f"{url}/files/file-1")

    error = response.json["error"]
    assert (response.status, error["code"]) == (status, code)
    assert error.keys() == {"message", "type", "param", "code"}
    assert "sk-cl" not in error["message"]


async def test_cloud_s_redirect_is_not_followed(cloud: ScriptedCloud, url: str):
    cloud.plays(scripted.answer(b"", f"location: {cloud.base_url}/elsewhere", status=307))
    cloud.plays(OK)

    response = await send("GET", f"{url}/files/file-1")

    assert response.status == 502
    assert [request.target for request in cloud.requests] == ["/v1/files/file-1"]


async def test_without_a_cloud_the_remedy_is_told():
    async with serving_with(settings("local"), Engine("local", [])) as url:
        response = await send("GET", f"{url}/files")

    assert response.status == 404
    assert "'openai'" in response.json["error"]["message"]


async def test_key_is_needed_and_slots_are_counted(cloud: ScriptedCloud):
    cloud.plays(Pause(60))
    extra = f"auth: {{keys: [{{key: {KEY}}}]}}\nlimits: {{max_in_flight: 1}}"

    async with serving_with(settings("cloud", extra=extra), cloud_backend(cloud)) as url:
        without = await send("GET", f"{url}/files")
        first = asyncio.ensure_future(send("GET", f"{url}/files", headers={"api-key": KEY}))
        await cloud.arrived.wait()
        second = await send("GET", f"{url}/files", headers={"api-key": KEY})
        first.cancel()

    assert (without.status, second.status) == (401, 429)


async def test_websocket_is_told_to_go_to_the_cloud(cloud: ScriptedCloud, url: str):
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}

    response = await send("GET", f"{url}/realtime?model=gpt-realtime", headers=headers)

    assert (response.status, response.json["error"]["code"]) == (400, "unsupported_parameter")
    assert cloud.requests == []


async def test_record_holds_what_was_asked_and_no_content(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(b"secret"))
    sink = MemorySink()

    async with serving_with(settings("cloud"), cloud_backend(cloud), sink=sink) as url:
        await send("POST", f"{url}/files?x=hidden", b"secret")

    (exchange,) = sink.exchanges
    assert (exchange.endpoint, exchange.outcome, exchange.status) == ("/files", "completed", 200)
    assert bytes(exchange.request) == b"{}"
    assert exchange.attempts[0].outcome == "completed"
    assert exchange.attempts[0].first_byte_s is not None
    assert "secret" not in repr(exchange)


# ---------------------------------------------------------------- paths that climb

SEGMENTS = st.text(st.sampled_from("./%2eEfF5cC\\a;"), max_size=12)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/files/../../admin",
        "/v1/files/%2e%2e/%2E./admin",
        "/v1/files/..%2f..%2fadmin",
        "/v1/files/%252e%252e/admin",
        "/v1/files/..;/admin",
        "/v1/files/..%5cadmin",
        "/v1//evil.example/x",
        "/v1/files/%00",
        "/v1/%" + "25" * 20 + "2e",
    ],
)
async def test_path_that_leads_elsewhere_is_not_followed(cloud: ScriptedCloud, url: str, path: str):
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

    response = await raw(url, request.encode())

    assert response.status == 404
    assert response.json["error"]["code"] == "not_found"
    assert cloud.requests == []


@given(st.lists(SEGMENTS, min_size=1, max_size=4))
def test_no_segment_that_goes_on_is_a_step_up(segments: list[str]):
    scope = {"raw_path": ("/v1/" + "/".join(segments)).encode(), "query_string": b""}

    try:
        target = _target(scope)
    except NotFound:
        return

    decoded = target.replace("%2e", ".").replace("%2E", ".").replace("%5c", "\\").split("/")
    assert not {".", "..", "..;"} & set(decoded[1:])
    assert "" not in decoded[1:]


# ---------------------------------------------------------------- Azure's deployments


async def test_azure_s_image_request_gets_its_model(cloud: ScriptedCloud, url: str):
    cloud.plays(OK)
    base = url.removesuffix("/v1")
    path = "/openai/deployments/dall-e/images/generations?api-version=1&x=2"

    await send("POST", base + path, b'{"prompt":"a cat"}')

    assert cloud.requests[0].target == "/v1/images/generations?x=2"
    assert cloud.requests[0].json == {"prompt": "a cat", "model": "dall-e"}


async def test_azure_s_deployment_gets_the_cloud_s_name(cloud: ScriptedCloud):
    cloud.plays(scripted.answer({"model": "gpt-image-1"}))
    backend = cloud_backend(cloud, {"dall-e": "gpt-image-1"})

    async with serving_with(settings("cloud"), backend) as url:
        path = "/openai/deployments/dall-e/images/generations"
        response = await send("POST", url.removesuffix("/v1") + path, b"{}")

    assert cloud.requests[0].json == {"model": "gpt-image-1"}
    assert response.json == {"model": "dall-e"}


async def test_azure_s_form_gets_its_model(cloud: ScriptedCloud, url: str):
    cloud.plays(scripted.answer({"text": "hello"}))
    form = aiohttp.FormData()
    form.add_field("file", b"RIFF", filename="a.wav")
    path = "/openai/deployments/whisper/audio/transcriptions?api-version=1"

    async with (
        aiohttp.ClientSession() as session,
        session.post(url.removesuffix("/v1") + path, data=form) as answer,
    ):
        assert answer.status == 200

    (request,) = cloud.requests
    assert int(request.headers["content-length"]) == len(request.body)
    assert b'name="model"\r\n\r\nwhisper\r\n--' in request.body
    assert request.body.startswith(b"--")


async def test_azure_client_s_form_that_names_its_model_stays_as_it_is(
    cloud: ScriptedCloud, url: str
):
    cloud.plays(scripted.answer({"text": "hello"}))
    client = AsyncAzureOpenAI(
        azure_endpoint=url.removesuffix("/v1"), api_key=KEY, api_version="1", max_retries=0
    )

    answer = await client.audio.transcriptions.create(model="whisper", file=("a.wav", b"RIFF"))

    assert answer.text == "hello"
    assert cloud.requests[0].target == "/v1/audio/transcriptions"
    assert cloud.requests[0].body.count(b'name="model"') == 1


# ---------------------------------------------------------------- what the account keeps


ACME = f"auth: {{keys: [{{key: {KEY}, tenant: acme}}]}}"


@pytest.mark.parametrize(
    ("path", "content", "kind", "status"),
    [
        ("audio/speech", b'{"voice":{"id":"voice_1"}}', "application/json", 403),
        ("images/edits", b'{"images":[{"file_id":"file-1"}]}', "application/json", 403),
        ("images/edits", b'{"images":[{"file_id":"file-1"}]}', "text/plain", 415),
        ("images/edits", b'{"a":{"file_id":"x"},"a":1}', "application/json", 400),
        ("audio/speech", b'{"voice":"alloy"}', "application/json", 200),
        ("images/edits", b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 200),
    ],
)
async def test_other_tenants_reach_nothing_that_the_account_keeps(
    cloud: ScriptedCloud, path: str, content: bytes, kind: str, status: int
):
    cloud.plays(OK)
    headers = {"api-key": KEY, "content-type": kind}

    async with serving_with(settings("cloud", extra=ACME), cloud_backend(cloud)) as url:
        response = await send("POST", f"{url}/{path}", content, headers)

    assert response.status == status
    assert [request.body for request in cloud.requests] == [content] * (status == 200)
