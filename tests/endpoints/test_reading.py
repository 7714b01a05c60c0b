from __future__ import annotations

import asyncio
import gzip

import msgspec
import openai
import pytest
import zstandard
from openai import AsyncOpenAI

from proxy.backends.base import Text
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import Response, body, raw, send

BODY = msgspec.json.encode(body())
SMALL = "limits: {max_body_mib: 0.01}"


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


async def posted(content: bytes, extra: str = "", **headers: str) -> Response:
    """The answer to a chat request with this body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    local = Engine("local", [Text("hello"), finish()])
    async with serving_with(settings("local", extra=extra), local) as url:
        return await send("POST", f"{url}/chat/completions", content, named)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("zstd", zstd(BODY)),
        ("zstd", zstd(BODY[:9]) + zstd(BODY[9:])),
        ("identity", BODY),
        ("", BODY),
    ],
)
async def test_packed_body_is_read(encoding: str, content: bytes):
    response = await posted(content, content_encoding=encoding)

    assert response.status == 200


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", BODY),
        ("gzip", gzip.compress(BODY)[:-3]),
        ("gzip", gzip.compress(BODY) + b"x"),
        ("gzip", b""),
        ("zstd", BODY),
        ("zstd", zstd(BODY)[:-3]),
        ("zstd", b"\x28\xb5\x2f\xfd\x00\xf8" + b"\x00" * 8),
    ],
)
async def test_packed_body_that_is_broken_is_told(encoding: str, content: bytes):
    response = await posted(content, content_encoding=encoding)

    assert response.status == 400
    assert response.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("encoding", ["br", "gzip, zstd", "deflate", "x" * 200])
async def test_encoding_that_is_not_read_is_told(encoding: str):
    response = await posted(BODY, content_encoding=encoding)

    assert response.status == 415
    assert "gzip" in response.json["error"]["message"]
    assert len(response.json["error"]["message"]) < 200


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd)])
async def test_limit_counts_what_is_unpacked(encoding: str, pack):
    response = await posted(pack(b" " * 20_000), SMALL, content_encoding=encoding)

    assert response.status == 413
    assert response.json["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;v=1"]
)
async def test_content_type_may_have_parameters(kind: str):
    response = await posted(BODY, content_type=kind)

    assert response.status == 200


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_other_content_type_is_told(kind: str):
    response = await posted(BODY, content_type=kind)

    assert response.status == 415
    assert "application/json" in response.json["error"]["message"]


async def test_large_body_is_refused_in_openai_s_form_to_a_client_that_sends_it_all():
    response = await posted(b" " * 8_000_000, SMALL)

    assert (response.status, response.json["error"]["code"]) == (413, "request_too_large")


async def test_official_client_is_told_that_its_body_is_too_large():
    async with serving_with(settings("local", extra=SMALL), Engine("local", [])) as url:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        with pytest.raises(openai.APIStatusError) as caught:
            await client.responses.create(model="gpt-4o", input="x" * 8_000_000)

    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


async def test_body_of_unknown_length_is_refused_when_it_grows_too_large():
    async with serving_with(settings("local", extra=SMALL), Engine("local", [])) as url:
        piece = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        response = await raw(
            url,
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + piece,
        )

    assert response.status == 413


async def test_key_is_asked_for_before_the_body_is_read():
    keyed = settings("local", extra="auth: {keys: [{key: 0123456789abcdef}]}")

    async with serving_with(keyed, Engine("local", [])) as url, asyncio.timeout(5):
        response = await raw(
            url,
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
            b"connection: close\r\n\r\n",
        )

    assert response.status == 401
