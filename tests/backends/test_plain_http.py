"""Our own HTTP client, against servers that say what they should not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from proxy.backends import plain_http
from proxy.backends.plain_http import Answer, Broken, ConnectTimedOut, PlainClient

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat"


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    (size,) = (
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if b"content-length" in line
    )
    return head + await reader.readexactly(size)


def saying(*said: bytes, then_closes: bool = False) -> Serve:
    """A server that answers each request with the next of these, whatever it was."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in said:
            await request(reader)
            writer.write(one)
            await writer.drain()
        if not then_closes:
            await reader.read()

    return serve


@pytest.fixture
async def client() -> AsyncIterator[PlainClient]:
    made = PlainClient(1, 10)
    yield made
    made.close()


async def asked(client: PlainClient, url: str, silence_s: float = 2) -> tuple[Answer, bytes]:
    answer = await client.request("POST", url, b"{}", {"x-one": "1"}, silence_s)
    try:
        return answer, b"".join([piece async for piece in answer])
    finally:
        answer.close()


async def test_what_is_asked_arrives_and_the_answer_comes_back(client: PlainClient) -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await request(reader))
        writer.write(b"HTTP/1.1 201 Made\r\nContent-Type: Text/Plain; x=y\r\nA: 1\r\na: 2\r\n")
        writer.write(b"content-length: 2\r\n\r\nhi")

    async with serving(serve) as url:
        answer, body = await asked(client, url)

    port = url.split(":")[2].partition("/")[0]
    assert requests == [
        f"POST /v1/chat HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-one: 1\r\n".encode()
        + b"content-length: 2\r\n\r\n{}"
    ]
    assert (answer.status, answer.content_type, answer.headers["a"]) == (201, "text/plain", "1, 2")
    assert body == b"hi"


async def test_what_came_together_is_given_together(client: PlainClient) -> None:
    async with serving(saying(CHUNKED + b"2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n")) as url:
        answer = await client.request("POST", url, b"{}", {}, 2)

        assert [piece async for piece in answer] == [b"hi!"]


@pytest.mark.parametrize(("rest", "waiting"), [(b"0\r\n\r\n", b"hi"), (b"", None)])
async def test_a_body_that_is_there_is_known_to_be_whole(
    client: PlainClient, rest: bytes, waiting: bytes | None
) -> None:
    async with serving(saying(CHUNKED + b"2\r\nhi\r\n" + rest)) as url:
        answer = await client.request("POST", url, b"{}", {}, 2)

        assert answer.waiting == waiting
        answer.close()


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (CHUNKED + b"2;x=y\r\nhi\r\n0\r\nt: 1\r\n\r\n", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nx: y\r\n\r\n" + OK, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
async def test_an_answer_ends_where_the_standard_says_and_the_connection_stays(
    client: PlainClient, said: bytes, body: bytes
) -> None:
    async with serving(saying(said, OK)) as url:
        assert (await asked(client, url))[1] == body
        # The server's second answer goes to the same connection only.
        assert (await asked(client, url))[1] == b"hi"


async def test_an_answer_without_a_length_ends_with_its_connection(client: PlainClient) -> None:
    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\nhi", then_closes=True)) as url:
        assert (await asked(client, url))[1] == b"hi"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi",
        CHUNKED + b"2\r\nhi\r\n",
        CHUNKED + b"zz\r\nhi\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffff\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nhi",
        b'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{"a": "longer than that"}',
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02",
    ],
    ids=range(17),
)
async def test_what_is_no_whole_answer_is_an_error(client: PlainClient, said: bytes) -> None:
    async with serving(saying(said, then_closes=True)) as url:
        with pytest.raises(Broken):
            await asked(client, url)


async def test_what_comes_after_an_answer_is_nobody_s(client: PlainClient) -> None:
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    async with serving(saying(OK + evil, OK)) as url:
        for _ in range(3):
            assert (await asked(client, url))[1] == b"hi"


async def test_who_speaks_while_nobody_asks_is_hung_up_on(client: PlainClient) -> None:
    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        # Once that has been read, nothing more is to be said.
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await reader.read()
        hung_up.set()

    async with serving(serve) as url:
        assert (await asked(client, url))[1] == b"hi"
        async with asyncio.timeout(plain_http.KEPT_S / 2):
            await hung_up.wait()
        assert (await asked(client, url))[1] == b"hi"


async def test_a_connection_that_the_server_has_closed_is_not_used(client: PlainClient) -> None:
    async with serving(saying(OK, then_closes=True)) as url:
        for _ in range(3):
            assert (await asked(client, url))[1] == b"hi"
            await asyncio.sleep(0.05)


async def test_a_request_is_sent_once(client: PlainClient) -> None:
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await request(reader)
        requests += 1
        writer.write(OK)
        await request(reader)
        requests += 1

    async with serving(serve) as url:
        await asked(client, url)
        with pytest.raises(Broken):
            await asked(client, url)

    assert requests == 2


async def test_a_flood_waits_until_it_is_read(client: PlainClient) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with serving(serve) as url:
        answer = await client.request("POST", url, b"", {}, 2)
        await asyncio.sleep(0.3)
        assert sent < 20_000_000
        before = sent
        async for _ in answer:
            if sent > before + 10_000_000:
                break
        answer.close()


async def test_idle_connections_are_closed(
    client: PlainClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_http, "KEPT_S", 0.05)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await reader.read()
        gone.set()

    async with serving(serve) as url:
        await asked(client, url)
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_large_body_arrives_whole(client: PlainClient) -> None:
    size = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal size
        size = len((await request(reader)).partition(b"\r\n\r\n")[2])
        writer.write(OK)

    async with serving(serve) as url:
        answer = await client.request("POST", url, b"x" * 5_000_000, {}, 5)
        answer.close()

    assert size == 5_000_000


async def test_who_finds_no_free_connection_waits_no_longer_than_for_a_new_one() -> None:
    client = PlainClient(0.1, 1)
    async with serving(saying(b"")) as url:
        first = asyncio.create_task(client.request("POST", url, b"", {}, 5))
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectTimedOut):
            await client.request("POST", url, b"", {}, 5)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

        second = asyncio.create_task(client.request("POST", url, b"", {}, 0.2))
        with pytest.raises(TimeoutError, match="silent"):
            await second
    client.close()


async def test_a_new_connection_that_breaks_is_not_asked_again(client: PlainClient) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        await reader.readuntil(b"\r\n\r\n")
        connections += 1

    async with serving(serve) as url:
        with pytest.raises(Broken):
            await client.request("GET", url, None, {}, 2)

    assert connections == 1
