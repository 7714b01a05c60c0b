"""One contract, two clients: what a caller sees does not tell which of them asked."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from proxy.backends.client import Answer
from proxy.backends.full_http import FullClient
from proxy.backends.plain_http import Broken, ConnectTimedOut, PlainClient
from tests.backends.test_plain_http import CHUNKED, OK, Serve, saying, serving

Either = PlainClient | FullClient


@pytest.fixture(params=["plain", "full"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Either]:
    if request.param == "plain":
        plain = PlainClient(0.2, 1)
        yield plain
        plain.close()
    else:
        full = FullClient(0.2, 1, 4)
        yield full
        await full.close()


async def asked(
    client: Either, url: str, method: str = "POST", body: bytes | None = b"{}", silence_s: float = 2
) -> tuple[Answer, bytes]:
    answer = await client.request(method, url, body, {"x-one": "1"}, silence_s)
    try:
        return answer, b"".join([piece async for piece in answer])
    finally:
        answer.close()


def heard(said: list[bytes], answer: bytes = OK) -> Serve:
    """A server that keeps the head of each request, bodiless ones too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            said.append(head)
            writer.write(answer)

    return serve


# ---------------------------------------------------------------- what is asked and answered


async def test_an_answer_is_told_alike(client: Either) -> None:
    said = b"HTTP/1.1 201 Made\r\nContent-Type: Text/Plain; x=y\r\nA: 1\r\na: 2\r\n"
    async with serving(saying(said + b"content-length: 2\r\n\r\nhi")) as url:
        answer, body = await asked(client, url)

    assert (answer.status, answer.content_type, body) == (201, "text/plain", b"hi")
    assert answer.headers == {"content-type": "Text/Plain; x=y", "a": "1, 2", "content-length": "2"}


async def test_an_answer_without_a_type_has_the_standard_s(client: Either) -> None:
    async with serving(saying(OK)) as url:
        answer, _ = await asked(client, url)

    assert answer.content_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("method", "length"), [("GET", None), ("DELETE", b"0"), ("POST", b"0"), ("PATCH", b"0")]
)
async def test_no_body_is_said_as_the_method_wants(
    client: Either, method: str, length: bytes | None
) -> None:
    heads: list[bytes] = []
    async with serving(heard(heads)) as url:
        _, body = await asked(client, url, method, None)

    (head,) = heads
    assert head.startswith(f"{method} /v1/chat HTTP/1.1\r\n".encode())
    assert b"content-type" not in head.lower()
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    assert lines.get(b"content-length") == length
    assert body == b"hi"


async def test_an_answer_to_head_has_no_body(client: Either) -> None:
    heads: list[bytes] = []
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"
    async with serving(heard(heads, said)) as url:
        answer, body = await asked(client, url, "HEAD", None)
        await asked(client, url, "HEAD", None)

    assert (answer.headers["content-length"], body, len(heads)) == ("99", b"", 2)


async def test_a_redirect_is_an_answer(client: Either) -> None:
    said = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with serving(saying(said)) as url:
        answer, _ = await asked(client, url)

    assert answer.status == 307


async def test_connections_are_used_again(client: Either) -> None:
    async with serving(saying(OK, OK)) as url:
        # The server's second answer goes to the same connection only, and one is all there is.
        assert (await asked(client, url))[1] == b"hi"
        assert (await asked(client, url))[1] == b"hi"


@pytest.mark.parametrize(("method", "is_repeated"), [("GET", True), ("POST", False)])
async def test_what_may_be_asked_twice_is_when_a_kept_connection_breaks(
    client: Either, method: str, is_repeated: bool
) -> None:
    connections, requests = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, requests
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            requests += 1
            if requests == 2:
                return
            writer.write(OK)

    async with serving(serve) as url:
        await asked(client, url, method, None)
        if is_repeated:
            assert (await asked(client, url, method, None))[1] == b"hi"
        else:
            with pytest.raises(Broken):
                await asked(client, url, method, None)

    assert (connections, requests) == ((2, 3) if is_repeated else (1, 2))


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi",
        CHUNKED + b"2\r\nhi\r\n",
        CHUNKED + b"zz\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02",
    ],
    ids=range(10),
)
async def test_what_is_no_whole_answer_is_broken(client: Either, said: bytes) -> None:
    async with serving(saying(said, then_closes=True)) as url:
        with pytest.raises(Broken):
            await asked(client, url)


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nh"])
async def test_a_connection_that_is_reset_is_broken(client: Either, begin: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(begin)
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serving(serve) as url:
        with pytest.raises(Broken):
            await asked(client, url)


async def test_nobody_there_is_broken(client: Either, unused_tcp_port: int) -> None:
    with pytest.raises(Broken):
        await asked(client, f"http://127.0.0.1:{unused_tcp_port}/")


@pytest.mark.parametrize("host", ["nobody.invalid", f"{'a' * 64}.invalid"])
async def test_a_name_that_nobody_has_is_broken(client: Either, host: str) -> None:
    with pytest.raises((Broken, ConnectTimedOut)):
        await asked(client, f"http://{host}/")


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nh"])
async def test_silence_is_a_timeout_and_none_of_connecting(client: Either, begin: bytes) -> None:
    async with serving(saying(begin)) as url:
        with pytest.raises(TimeoutError) as raised:
            await asked(client, url, silence_s=0.1)

    assert type(raised.value) is TimeoutError


async def test_who_does_not_accept_is_a_timeout_of_connecting(client: Either) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.create_connection(address)]
        waiting += [socket.socket() for _ in range(3)]
        for one in waiting[1:]:
            one.setblocking(False)
            one.connect_ex(address)

        with pytest.raises(ConnectTimedOut):
            await asked(client, f"http://127.0.0.1:{address[1]}/")

        for one in waiting:
            one.close()


async def test_no_free_connection_is_a_timeout_of_connecting(client: Either) -> None:
    async with serving(saying(b"")) as url:
        first = asyncio.ensure_future(client.request("POST", url, b"{}", {}, 5))
        await asyncio.sleep(0.05)

        with pytest.raises(ConnectTimedOut):
            await asked(client, url)

        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_what_is_given_up_ends_its_connection(client: Either) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nh")
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(serve) as url:
        answer = await client.request("POST", url, b"{}", {}, 2)
        answer.close()
        async with asyncio.timeout(5):
            await gone.wait()
