"""Bytes that no honest client or cloud sends: smuggled requests, floods, split headers.

Whatever is ambiguous between two readers of HTTP is refused and the connection closed, so that
nothing that follows on it can be taken for a request of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from proxy import server as served
from proxy.backends.base import Text
from tests import scripted
from tests.scripted import ScriptedCloud
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import cloud_backend

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
SMUGGLED = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


def chat(*headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return POST + lines + b"content-length: %d\r\n\r\n" % len(CHAT) + CHAT


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving_with(settings("local"), Engine("local", [Text("hi"), finish()])) as url:
        yield url


async def said(url: str, *pieces: bytes) -> bytes:
    """All that comes back until the server closes, which it must."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    came = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(20):
            while piece := await reader.read(65536):
                came += piece
    except ConnectionError:
        # What it had not read when it closed makes a reset of the close.
        pass
    finally:
        writer.close()
    return came


def statuses(came: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", came)]


AMBIGUOUS = {
    "length and chunks": b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "one length twice": b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": b"content-length: 5, 5\r\n\r\nhello",
    "a signed length": b"content-length: +5\r\n\r\nhello",
    "a negative length": b"content-length: -5\r\n\r\nhello",
    "a length beyond all numbers": b"content-length: 99999999999999999999999\r\n\r\nhello",
    "a length in hexadecimal": b"content-length: 0x5\r\n\r\nhello",
    "an unknown coding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "codings in two headers": b"transfer-encoding: chunked\r\ntransfer-encoding: identity"
    b"\r\n\r\n0\r\n\r\n",
    "a coding after a vertical tab": b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"content-length : 5\r\n\r\nhello",
    "a folded header": b"x-a: b\r\n c\r\ncontent-length: 5\r\n\r\nhello",
    "a folded coding": b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "NUL in a header": b"x-a: b\0c\r\n\r\n",
    "a bare CR in a header": b"x-a: b\rcontent-length: 5\r\n\r\nhello",
    "a bare LF in a header": b"x-a: b\ncontent-length: 5\r\n\r\nhello",
    "a header without a name": b": b\r\n\r\n",
}
CHUNKS = {
    "a size that is none": b"zz\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size that overflows": b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a line end in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "no line end after a chunk": b"5\r\nhelloXX0\r\n\r\n",
    "bare line ends": b"5\nhello\n0\n\n",
}


@pytest.mark.parametrize("how", AMBIGUOUS)
async def test_ambiguous_head_is_refused_and_nothing_after_it_is_read(url: str, how: str):
    assert statuses(await said(url, POST + AMBIGUOUS[how] + SMUGGLED)) == [400]


@pytest.mark.parametrize("how", CHUNKS)
async def test_bad_chunks_are_refused_and_nothing_after_them_is_read(url: str, how: str):
    came = await said(url, CHUNKED + CHUNKS[how] + SMUGGLED)

    assert statuses(came) == [400]


async def test_pipelined_requests_are_answered_in_order(url: str):
    last = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

    came = await said(url, chat() + SMUGGLED + chat() + last)

    assert statuses(came) == [200, 200, 200, 404]
    assert came.index(b"chat.completion") < came.index(b'"status":"ok"')


@pytest.mark.parametrize("name", ["x-request-id", "x-client-request-id", "x-headrace-conversation"])
@pytest.mark.parametrize("value", [b"a\tset-cookie: b", b"\xff\xfe", b"a" * 129])
async def test_value_that_is_no_id_is_not_sent_back(url: str, name: str, value: bytes):
    came = await said(url, chat(name.encode() + b": " + value, b"connection: close"))

    assert statuses(came) == [200]
    assert value not in came


async def test_line_end_in_a_path_ends_no_line_of_the_answer(url: str):
    path = b"GET /v1/a%0d%0aset-cookie:b%0d%0a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

    came = await said(url, path)

    assert statuses(came) == [404]
    assert b"\r\nset-cookie" not in came


# ---------------------------------------------------------------- floods


async def test_head_without_an_end_is_refused(url: str):
    flood = [b"x-%d: %s\r\n" % (n, b"a" * 8000) for n in range(400)]

    came = await said(url, b"GET /health HTTP/1.1\r\n", *flood)

    assert statuses(came) in ([400], [])


async def test_one_endless_header_is_refused(url: str):
    came = await said(url, b"GET /health HTTP/1.1\r\nx-a: ", *[b"a" * 8000] * 400)

    assert statuses(came) in ([400], [])


async def test_endless_path_is_refused(url: str):
    came = await said(url, b"GET /", *[b"a" * 8000] * 400)

    assert statuses(came) in ([400], [])


async def test_headers_without_an_end_after_a_body_close_the_connection(url: str):
    flood = [b"x-%d: %s\r\n" % (n, b"a" * 8000) for n in range(400)]

    assert 200 not in statuses(await said(url, CHUNKED + b"1\r\n{\r\n0\r\n", *flood))


async def test_large_body_is_no_flood(url: str):
    content = CHAT[:-1] + b',"user":"' + b"a" * 2**20 + b'"}'
    head = POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
    pieces = [content[at : at + 9999] for at in range(0, len(content), 9999)]

    assert statuses(await said(url, head, *pieces)) == [200]


# ---------------------------------------------------------------- other protocols


H2C = (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__")
"""What Java's own client sends with each request over plain HTTP."""


async def test_request_that_asks_for_http_2_is_answered_in_http_1(url: str):
    came = await said(url, chat(*H2C), chat(*H2C, b"connection: close"))

    assert statuses(came) == [200, 200]


@pytest.mark.parametrize("asks", ["h2c", "websocket"])
async def test_body_of_a_request_that_asks_for_another_protocol_is_no_request(url: str, asks: str):
    head = POST + b"connection: upgrade\r\nupgrade: %s\r\nexpect: 100-continue\r\n" % asks.encode()
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    writer.write(head + b"content-length: %d\r\n\r\n" % len(SMUGGLED))
    came = await reader.readuntil(b"\r\n")
    writer.write(SMUGGLED + chat(b"connection: close"))
    came += await reader.read(-1)
    writer.close()

    assert statuses(came) == [100, 400, 200]


async def test_many_requests_for_another_protocol_are_answered_in_order(url: str):
    asking = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: a\r\n\r\n"

    came = await said(url, asking * 2000 + last)

    assert statuses(came) == [200] * 2000 + [404]


async def test_head_that_does_not_come_closes_the_connection(monkeypatch):
    monkeypatch.setattr(served, "_KEEP_ALIVE_S", 0.2)
    async with serving_with(settings("local"), Engine("local", [Text("hi"), finish()])) as url:
        assert await said(url, b"GET /health HTTP/1.1\r\n") == b""
        assert await said(url) == b""


# ---------------------------------------------------------------- from the cloud


ODD = {
    "folded": b"x-ratelimit-a: b\r\n set-cookie: evil",
    "a bare LF": b"x-ratelimit-a: b\nset-cookie: evil",
    "a bare CR": b"x-ratelimit-a: b\rset-cookie: evil",
    "NUL": b"x-ratelimit-a: b\0",
    "a control character": b"retry-after: \x01",
    "DEL": b"retry-after: \x7f",
    "Latin-1": b"x-ratelimit-a: \xe9",
    "beyond Latin-1": "x-ratelimit-a: 東京".encode(),
    "a content type with a control character": b"content-type: application/json\x01",
}


@pytest.mark.parametrize("how", ODD)
async def test_header_of_a_cloud_makes_no_second_one_and_costs_no_answer(
    cloud: ScriptedCloud, how: str
):
    answer = scripted.answer({"object": "chat.completion", "choices": []})
    cloud.plays(answer.replace(b"\r\n", b"\r\n" + ODD[how] + b"\r\n", 1))
    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        came = await said(url, chat(b"connection: close"))

    # What the library cannot read at all is a cloud that cannot be used.
    assert statuses(came) in ([200], [502])
    assert b"\nset-cookie" not in came.lower() and b"\rset-cookie" not in came.lower()
