"""How what comes from outside is read: one function a parser, which takes bytes (parsers.py)."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import msgspec
import numpy as np
import pyarrow.dataset
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import save

from proxy import config, gateway, sse
from proxy.auth_settings import OidcSettings
from proxy.backends import http
from proxy.backends.embedded import grammar, weights
from proxy.backends.engine import Conversation, Generation, Prompt, Sampling
from proxy.backends.plain_http import Broken, PlainClient
from proxy.backends.tgi.dialect import Tgi
from proxy.backends.vllm.dialect import Vllm
from proxy.errors import ProxyError
from proxy.hearing import Heard
from proxy.protocol import adapter, champions, parquet, segments, toolcheck
from proxy.protocol.conversation import check_messages
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import render, template
from proxy.protocol.openai import (
    ChatRequest,
    Function,
    FunctionCall,
    Message,
    PastCall,
    Tool,
    ToolCall,
    parse_object,
)
from proxy.protocol.redact import Redactor
from proxy.protocol.repair import repair
from proxy.protocol.responses import request as responses
from proxy.tokens import ProviderTokens
from tests.protocol.test_adapter import FILES, MANIFEST
from trainer.recipe.sources import PythonDocsSettings, StackExchangeSettings
from trainer.sources.base import Skips
from trainer.sources.sphinx import Site
from trainer.sources.stackexchange import StackExchangeSource

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "pattern": "^a+$", "minLength": 1, "format": "date"},
        "b": {"type": "array", "items": {"$ref": "#/$defs/c"}, "uniqueItems": True},
        "d": {"anyOf": [{"type": "integer"}, {"enum": [1, "x", None]}]},
    },
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"c": {"type": "object", "properties": {"x": {"$ref": "#/$defs/c"}}}},
}


def js(value: object) -> bytes:
    return msgspec.json.encode(value)


# ---------------------------------------------------------------- the proxy's


def read_responses(body: bytes) -> None:
    parse_object(body)
    gateway.parse(responses.to_chat(responses.parse(body)))


def read_events(stream: bytes) -> None:
    """However a stream is cut, its events are the same."""
    whole = sse.EventDecoder(4096).feed(stream)
    cut = sse.EventDecoder(4096)
    assert [e for at in range(len(stream)) for e in cut.feed(stream[at : at + 1])] == whole


def read_answer(body: bytes) -> None:
    heard = Heard()
    heard.add_stream([body[: len(body) // 2], body[len(body) // 2 :]])
    heard.add_json(body)
    heard.judged()
    js(heard.answer())


def read_calls(text: bytes) -> None:
    said = text.decode("utf-8", "replace")
    for format in FORMATS.values():
        for call in format.parse(said).calls:
            js(call)


def render_text(text: bytes) -> None:
    """Whatever a message, a call, a tool says: it is shown, or refused as what cannot be."""
    said = text.decode("utf-8", "replace")
    messages = [
        Message(role="user", content=said, name=said),
        Message(role="assistant", tool_calls=[PastCall("1", function=FunctionCall(said, said))]),
    ]
    tool = Function(said[:99] or "f", said, msgspec.Raw(js(SCHEMA)))
    for format in FORMATS.values():
        render(template(format.template), messages, [tool])


def render_source(source: bytes) -> None:
    render(source.decode("utf-8", "replace"), [Message(role="user", content="x")], [])


def read_schema(schema: bytes) -> None:
    function = Function("f", parameters=msgspec.Raw(schema))
    request = ChatRequest(model="m", messages=[], tools=[Tool("function", function)])
    toolcheck.check_tools(request)
    fingerprint(function)
    call = ToolCall("1", FunctionCall("f", '{"a":"aa","b":[{"x":{}}],"d":1}'))
    toolcheck.check([call], request)
    repair([call], request)


def read_arguments(text: bytes) -> None:
    function = Function("f", parameters=msgspec.Raw(js(SCHEMA)))
    request = ChatRequest(model="m", messages=[], tools=[Tool("function", function)])
    call = ToolCall("1", FunctionCall("f", text.decode("utf-8", "replace")))
    toolcheck.check([call], request)
    repaired = repair([call], request)
    if repaired is not None:
        assert toolcheck.check(repaired.calls, request) is None
    check_messages([Message(role="assistant", tool_calls=[PastCall("1", function=call.function)])])


def read_grammar(schema: bytes) -> None:
    parse_object(schema)
    function = Function("f", parameters=msgspec.Raw(schema))
    fingerprint(function)
    grammar.plan(FORMATS["hermes"].constraint([function], True, True))


def read_routes(text: bytes) -> None:
    config.parse(text.decode("utf-8", "replace"), Path("/nowhere"), {})


def read_segment(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.segment"
        path.write_bytes(content)
        for record in segments.read_segment(path):
            js(record)


def read_parquet(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.parquet"
        path.write_bytes(content)
        schema = parquet.EXCHANGE_SCHEMA
        dataset = pyarrow.dataset.dataset(str(path), schema=schema, format="parquet")
        for batch in dataset.to_batches(columns=["exchange", "sealed"]):
            list(parquet.Rows().exchanges(batch))


def in_bundle(name: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            for file, whole in {**FILES, "manifest.json": js(MANIFEST)}.items():
                (path / file).write_bytes(whole)
            (path / name).write_bytes(content)
            adapter.read(path)

    return read


def tensors() -> bytes:
    """The weights of one linear, of rank 1."""
    linear = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    return save({f"{linear}{half}.weight": np.ones((1, 1), "f4") for half in "AB"})


def in_adapter(name: str) -> Callable[[bytes], None]:
    config = js({"r": 1, "lora_alpha": 2, "target_modules": ["q_proj"], "bias": "none"})

    def read(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            for file, whole in {weights.CONFIG_NAME: config, weights.WEIGHTS_NAME: TENSORS}.items():
                (path / file).write_bytes(whole)
            (path / name).write_bytes(content)
            weights.read_adapter(path)

    return read


TENSORS = tensors()


def read_template_of_bundle(content: bytes) -> None:
    """A template whose hash the manifest has: nothing but its bytes is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        manifest = msgspec.structs.replace(MANIFEST, template_sha256=adapter.sha256(content))
        files = {**FILES, "manifest.json": js(manifest), "template.jinja": content}
        for file, whole in files.items():
            (path / file).write_bytes(whole)
        adapter.read(path)


def read_champions(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "champions.json").write_bytes(content)
        champions.read(Path(directory))


def in_file(read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def reading(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "file"
            path.write_bytes(content)
            read(path)

    return reading


def redact(content: bytes) -> None:
    redactor = Redactor(b"k" * 32, known_secrets=["known secret"])
    once = redactor.redact(content.decode("utf-8", "replace"), "c")
    assert redactor.redact(once, "c") == once
    assert "known secret" not in str(once)


KEY = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"iss": "http://i", "aud": "headrace", "exp": 2**33, "sub": "a"}
TOKEN = jwt.encode(CLAIMS, KEY, algorithm="ES256", headers={"kid": "one"}).encode()


def tokens() -> ProviderTokens:
    public = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    made = ProviderTokens(OidcSettings(issuer="http://i", audience="headrace"))
    made._keys = {"one": jwt.PyJWK({**public, "kid": "one", "use": "sig"})}
    return made


TOKENS = tokens()


def read_token(token: bytes) -> None:
    caller = TOKENS.caller(token)
    assert caller is None or token == TOKEN


# ---------------------------------------------------------------- what servers say to the proxy


@asynccontextmanager
async def saying(first: bytes, then: bytes = b"", closes: bool = False) -> AsyncIterator[str]:
    """A server whose first answer is this, and all others that."""
    said = [first]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while (await reader.readuntil(b"\r\n\r\n")) and await reader.readexactly(2):
                writer.write(said.pop() if said else then)
                await writer.drain()
                if closes:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


async def _answered(said: bytes) -> None:
    """Whatever one answer is, the next request does not get a part of it."""
    client = PlainClient(1, 2)

    async def asked(url: str, silence_s: float) -> bytes:
        answer = await client.request("POST", url, b"{}", {}, silence_s)
        try:
            js([answer.status, answer.headers, answer.content_type])
            return b"".join([piece async for piece in answer])
        finally:
            answer.close()

    try:
        async with saying(said, HI) as url:
            with contextlib.suppress(TimeoutError, Broken):
                await asked(url, 0.02)
            with contextlib.suppress(Broken):
                assert await asked(url, 20) == b"hi"
    finally:
        client.close()


def read_http(said: bytes) -> None:
    asyncio.run(_answered(said))


SAMPLING = Sampling(max_tokens=9)
GENERATION = Generation(adapter=None, prompt=Prompt("<s>Hi", [1, 2]), sampling=SAMPLING)
ASKED = Conversation(adapter=None, request=ChatRequest(model="m", messages=[]), sampling=SAMPLING)


class _Words:
    beginning = "<s>"

    def decode(self, ids: Sequence[int]) -> str:
        return "<s>"


async def _generated(said: bytes) -> None:
    kind = b"text/event-stream" if said.startswith(b"data:") else b"application/json"
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\n\r\n" + said
    vllm, tgi = Vllm(base="b", adapters_there="/", end=2), Tgi(_Words(), "</s>")
    session = http.Session(1)
    try:
        for ways in ((vllm.generate, GENERATION), (vllm.chat, ASKED), (tgi.generate, GENERATION)):
            ask, about = ways
            async with saying(answer, closes=True) as url:
                with contextlib.suppress(ProxyError):
                    js([output async for output in ask(session, url, about)])
    finally:
        await session.close()


def read_generated(said: bytes) -> None:
    asyncio.run(_generated(said))


# ---------------------------------------------------------------- the trainer's


def read_page(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "objects.inv").write_bytes(b"# Sphinx\n# Project: p\n# Version: 1\n")
        (Path(directory) / "a.html").write_bytes(content)
        list(Site(Path(directory), PythonDocsSettings(license="l"), Skips()).rows())


def read_posts(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "Posts.xml"
        path.write_bytes(content)
        settings = StackExchangeSettings(paths=[str(path)], site="s", min_score=0)
        list(StackExchangeSource(settings, Skips()).rows())
