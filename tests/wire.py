"""Requests of tests, and what came back, down to the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from proxy import sse
from proxy.backends.openai import OpenAIBackend
from tests.openai_api import api_errors
from tests.scripted import ScriptedCloud

LOCAL = "local"
"""Name of the backend whose answers are of our making."""
SAID = {"chat/completions": "CreateChatCompletionResponse", "responses": "Response"}
TOOLS = (
    b'[{"type":"function","function":{"name":"ping","parameters":{"type":"object",'
    b'"properties":{"host":{"type":"string"}},"required":["host"]}}}]'
)


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content)


def body(**fields: object) -> dict[str, object]:
    """A chat request that offers one tool, `ping(host: string)`; None takes a field out."""
    whole = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Ping a."}],
        "tools": msgspec.json.decode(TOOLS),
    }
    return {name: value for name, value in (whole | fields).items() if value is not None}


async def ask(url: str, headers: Mapping[str, str] | None = None, **fields: object) -> Response:
    """The answer to `body`, with these fields in the place of its own."""
    content = msgspec.json.encode(body(**fields))
    return await send("POST", f"{url}/chat/completions", content, headers)


async def send(
    method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a request, JSON unless the headers say otherwise."""
    sent = {"content-type": "application/json"} | dict(headers or {})
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=content, headers=sent, allow_redirects=False) as answer,
    ):
        named = {name.lower(): value for name, value in answer.headers.items()}
        response = Response(answer.status, named, await answer.read())
    if named.get("content-type") == "application/json":
        _check(url, response)
    return response


def _check(url: str, response: Response) -> None:
    """What we said ourselves, OpenAI could have said."""
    path = url.rstrip("/").partition("/v1/")[2]
    if response.status >= 400 and path:
        assert api_errors(response.json, "ErrorResponse") == []
    elif response.headers.get("x-headrace-backend") == LOCAL and path in SAID:
        assert api_errors(response.json, SAID[path]) == []


async def events_of(url: str, **fields: object) -> AsyncIterator[Any]:
    """The events of a streamed answer as they come, `[DONE]` left out."""
    decoder = sse.EventDecoder()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", json=body(stream=True, **fields)) as answer,
    ):
        async for piece in answer.content.iter_any():
            for event in decoder.feed(piece):
                if event != sse.DONE:
                    yield _checked(msgspec.json.decode(event), answer.headers)


def _checked(event: Any, headers: Mapping[str, str]) -> Any:
    """A chunk of our own, or an error, that OpenAI could have sent."""
    if "error" in event:
        assert api_errors(event, "ErrorResponse") == []
    elif headers.get("x-headrace-backend") == LOCAL:
        assert api_errors(event, "CreateChatCompletionStreamResponse") == []
    return event


def cloud_backend(cloud: ScriptedCloud, models: Mapping[str, str] | None = None) -> OpenAIBackend:
    """The backend `cloud` that asks a scripted cloud."""
    return OpenAIBackend("cloud", base_url=cloud.base_url, models=models)


async def raw(url: str, request: bytes) -> Response:
    """The answer to bytes that no client would send. They must ask for `connection: close`."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return Response(int(first.split(" ")[1]), headers, content)
