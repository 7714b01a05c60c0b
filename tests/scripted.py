"""A cloud that plays what a test wrote: exact bytes, pauses, a cut. It notices when it is left.

    cloud.plays(answer(completion({"content": "hi"})))
    cloud.plays(*stream(chunk({"content": "h"}), Pause(60), chunk({"content": "i"}, "stop")))

Each request plays the next script, the last one again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from proxy import sse


@dataclass(frozen=True)
class Pause:
    """Silence for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Until:
    """Silence until the test says so."""

    event: asyncio.Event


@dataclass(frozen=True)
class Cut:
    """The connection breaks, as when a process is killed."""


Step = bytes | Pause | Until | Cut


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])


@dataclass
class ScriptedCloud:
    """Answers each request with the next script, the last one again and again."""

    base_url: str = ""
    scripts: list[tuple[Step, ...]] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    """How many were opened."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """A request has been received."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """A client closed its connection before the script was over."""

    def plays(self, *steps: Step) -> None:
        """Add a script, which plays for one request."""
        self.scripts.append(steps)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes on a new connection, until a script or the client closes it."""
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether another may follow on this connection."""
        request = await _receive(reader)
        self.requests.append(request)
        script = self.script_for(request)
        self.arrived.set()
        if not await _played_out(script, reader, writer):
            self.was_left(request)
        return isinstance(script[0], bytes) and KEPT.encode() in script[0]

    def script_for(self, request: Received) -> tuple[Step, ...]:
        """What is played for a request."""
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    def was_left(self, request: Received) -> None:
        """The client of this request has gone before the script was over."""
        self.abandoned.set()


@asynccontextmanager
async def scripted_cloud() -> AsyncIterator[ScriptedCloud]:
    """A cloud on a free port of this machine."""
    cloud = ScriptedCloud()
    async with reachable(cloud):
        yield cloud


@asynccontextmanager
async def reachable(cloud: ScriptedCloud) -> AsyncIterator[None]:
    """A port of this machine for a cloud, which is told its `base_url`."""
    server = await asyncio.start_server(cloud.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    cloud.base_url = f"http://{host}:{port}/v1"
    try:
        yield
    finally:
        server.close()


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join([piece async for piece in _chunks(reader)])
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = first.split(" ")
    return Received(method, target, headers, body)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


async def _played_out(
    script: tuple[Step, ...], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Play a script; False when the client left before its end."""
    playing = asyncio.ensure_future(_play(script, writer))
    leaving = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait([playing, leaving], return_when=asyncio.FIRST_COMPLETED)
        return playing.done() and playing.exception() is None
    finally:
        playing.cancel()
        leaving.cancel()
        await asyncio.gather(playing, leaving, return_exceptions=True)


async def _play(script: tuple[Step, ...], writer: asyncio.StreamWriter) -> None:
    for step in script:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Until(event):
                await event.wait()
            case Cut():
                writer.transport.abort()


# ---------------------------------------------------------------- scripts


KEPT = "connection: keep-alive"
"""Header of an answer after which the connection stays open; all others close it."""


def head(status: int = 200, *headers: str) -> bytes:
    """The head of a response; without a length, the connection's end is the body's."""
    closing = () if KEPT in headers else ("connection: close",)
    lines = [f"HTTP/1.1 {status} Scripted", *headers, *closing]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(
    body: object, *headers: str, status: int = 200, content_type: str = "application/json"
) -> bytes:
    """A whole response; a body that is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    size = f"content-length: {len(content)}"
    return head(status, f"content-type: {content_type}", size, *headers) + content


def error(status: int, message: str, code: str | None, *headers: str) -> bytes:
    """An error as OpenAI sends it."""
    about = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return answer({"error": about}, *headers, status=status)


def stream(*steps: object, done: bool = True) -> list[Step]:
    """A chunked stream: bytes go as one HTTP chunk each, pauses and cuts as they are, all else as
    one event. With `done` it ends as it should; without, it ends in the middle."""
    begin = head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
    end = [_http_chunk(sse.encode(sse.DONE)), b"0\r\n\r\n"] if done else []
    return [begin, *map(_step, steps), *end]


def _step(step: object) -> Step:
    match step:
        case Pause() | Until() | Cut():
            return step
        case bytes():
            return _http_chunk(step)
        case _:
            return _http_chunk(sse.encode(msgspec.json.encode(step)))


def _http_chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def chunk(delta: object, finish_reason: str | None = None) -> dict[str, object]:
    """A chunk of a streamed completion with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _chunk([choice])


def usage_chunk(prompt: int, completion: int) -> dict[str, object]:
    """The chunk that reports usage: no choices."""
    total = prompt + completion
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    return _chunk([]) | {"usage": usage}


def _chunk(choices: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": "chatcmpl-cloud",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": choices,
    }


def completion(message: object, finish_reason: str = "stop") -> dict[str, object]:
    """A whole completion with one choice and a usage of 3 and 2 tokens."""
    return {
        "id": "chatcmpl-cloud",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
