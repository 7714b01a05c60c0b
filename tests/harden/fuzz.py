"""Every parser, given what nobody wrote: it answers or raises what it says it raises.

    python -m tests.harden.fuzz --minutes 30 [--only NAME] [--seed 1]

prints one line a parser: inputs tried, inputs that failed. What once failed is kept in
tests/harden/corpus/NAME and tried first. `test_fuzz.py` is the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jwt
import msgspec
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from proxy import config, gateway, sse
from proxy.auth_settings import OidcSettings
from proxy.backends.embedded import grammar
from proxy.errors import BadConfig, BadRequest, Unauthenticated
from proxy.hearing import Heard
from proxy.keys.base import KeysUnavailable
from proxy.keys.file import FileKeys
from proxy.protocol import adapter, champions, parquet, segments, toolcheck
from proxy.protocol.adapter import AdapterError
from proxy.protocol.conversation import check_messages
from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import Unrenderable, render, template
from proxy.protocol.openai import (
    ChatRequest,
    Function,
    FunctionCall,
    MalformedRequest,
    Message,
    PastCall,
    Tool,
    ToolCall,
    parse_object,
)
from proxy.protocol.redact import Redactor
from proxy.protocol.repair import repair
from proxy.protocol.responses import request as responses
from proxy.protocol.router import RouterError
from proxy.protocol.router import read as read_router
from proxy.tokens import ProviderTokens
from tests.protocol.test_adapter import FILES, MANIFEST
from tests.record.examples import exchange
from tests.test_any_request import CHAT, RESPONSE
from trainer.formats import FORMATS as ROWS
from trainer.formats.base import BadRow

CORPUS = Path(__file__).parent / "corpus"
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


class Parser(NamedTuple):
    """Something that reads bytes from outside."""

    read: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    """What it may raise."""
    seeds: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    """What means something to it."""


def js(value: object) -> bytes:
    return msgspec.json.encode(value)


JSON = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"1e999", b"-0", b"\\u0000",
        b'"\\ud800"', b"[" * 3000, b'{"a":' * 3000, b"9" * 400, b'""')  # fmt: skip
ANY = (b"", b"\0", b"\xff", b"\r\n", b"\n", b" ", b"\xef\xbb\xbf", "東".encode(), b"a" * 300)


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
    toolcheck.fingerprint(function)
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
    toolcheck.fingerprint(function)
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


# ---------------------------------------------------------------- what they are given


def a_segment() -> bytes:
    return segments.Encoder().encode([exchange("a"), exchange("b")])


def a_parquet_file() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(parquet.Rows().table([exchange("a")]), sink)
    return sink.getvalue().to_pybytes()


ROUTES = Path("routes.yaml").read_bytes()
CALL = b'{"tool_name": "ping", "arguments": {"host": "a"}}'
TAGGED = b'Hm.\n<tool_call>\n{"name": "ping", "arguments": {"host": "a"}}\n</tool_call>'
LLAMA = b'{"name": "ping", "parameters": {"host": "a"}}; {"name": "ping", "parameters": {}}'
MARKS = (b"<tool_call>", b"</tool_call>", b"<call>", b"<|im_end|>", b"<|python_tag|>", b"; ")
YAML = (b"- ", b": ", b"&a ", b"*a", b"<<: ", b"!!python/name:os.system ", b"!!binary ", b"? ",
        b"| ", b"> ", b"---\n", b"...\n", b"%YAML 1.1\n", b"${HOME}", b"\t", b"[a]: b\n", b"{",
        b".inf", b"2024-10-21", b"0x1f", b"1_000", b"~", b"domains:", b"kind: openai")  # fmt: skip
JINJA = (b"{{", b"}}", b"{%", b"%}", b"for i in range(9)", b"endfor", b"messages", b"[0]",
         b".content", b"|tojson", b"|join", b"~", b"set n = namespace(s=1)", b"macro f(x)",
         b"endmacro", b"f(f)",
         b"**", b"__class__", b"loop", b"if", b"else", b"endif", b"recursive", b"include 'x'",
         b"tools", b"|map('upper')", b"-%}", b"{#", b"#}")  # fmt: skip
SCHEMAS = (b'"$ref":"#"', b'"type":"array"', b'"items":', b'"allOf":[', b'"pattern":"(a+)+$"',
           b'"enum":[]', b'"minItems":1e9', b'"maxLength":99999999', b'"not":',
           b'"$ref":"#/$defs/c"', b'"$ref":"http://127.0.0.1:1/"', b'"$id":"x"', b'"const":',
           b'"properties":',
           b'"format":"regex"', b'"multipleOf":0', b'"$schema":"x"',
           b'"$dynamicRef":"#c"')  # fmt: skip
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}],
            "tools": "[]"}  # fmt: skip
ALPACA = {"instruction": "Say hi", "input": "now", "output": "hi"}
XLAM = {
    "query": "Ping a.",
    "tools": '[{"name": "ping", "parameters": {"host": {"type": "str, optional"}}}]',
    "answers": '[{"name": "ping", "arguments": {"host": "a"}}]',
}
OPENAI = {"messages": [*CHAT["messages"][:2], {"role": "assistant", "content": "Yes"}]}
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a","tool_calls":[{"index":0}]}}]}\n\n'

PARSERS: dict[str, Parser] = {
    "request": Parser(gateway.parse, (BadRequest,), [js(CHAT)], (*JSON, b'"model"', b'"tools"')),
    "responses": Parser(read_responses, (BadRequest, MalformedRequest), [js(RESPONSE)], JSON),
    "events": Parser(read_events, (sse.EventTooLarge,), [CHUNK * 2 + b"data: [DONE]\n\n"],
                     (b"data:", b"\r", b"\r\n", b"\n\n", b": x", b"id: 1\n", b"data\n")),
    "cloud answer": Parser(read_answer, (), [CHUNK * 2, js({"choices": [{"message": {}}]})],
                           (*JSON, b'"usage":{}', b'"choices":', b'"error":', b'"index":-1')),
    "tool calls": Parser(read_calls, (), [CALL, TAGGED, LLAMA], (*JSON, *MARKS)),
    "prompt": Parser(render_text, (Unrenderable,), [b"Hi", b'{"a": [1]}'], (*JSON, *MARKS, *JINJA)),
    "template": Parser(render_source, (Unrenderable,), [template(n).encode() for n in
                       ("hermes", "structured", "llama3")], JINJA),
    "schema": Parser(read_schema, (MalformedRequest,), [js(SCHEMA)], (*JSON, *SCHEMAS)),
    "arguments": Parser(read_arguments, (MalformedRequest,), [b'{"a":"aa","b":[{"x":{}}],"d":1}'],
                        (*JSON, b"'", b"True", b"None", b"NaN")),
    "grammar": Parser(read_grammar, (MalformedRequest, grammar.UnusableConstraint), [js(SCHEMA)],
                      (*JSON, *SCHEMAS)),
    "routes.yaml": Parser(read_routes, (BadConfig,), [ROUTES], YAML),
    "segment": Parser(read_segment, (), [a_segment()],
                      (segments.MAGIC, b"\xff", b"1", b"\x28\xb5\x2f\xfd")),
    "parquet": Parser(read_parquet, (pa.ArrowException, OSError, ValueError), [a_parquet_file()],
                      (b"PAR1", b"\xff\xff\xff\x7f")),
    "manifest": Parser(in_bundle("manifest.json"), (AdapterError,), [js(MANIFEST)],
                       (*JSON, b"../", b'"id"')),
    "canary": Parser(in_bundle("canary.json"), (AdapterError,), [FILES["canary.json"]], JSON),
    "bundle's template": Parser(read_template_of_bundle, (AdapterError,), [b"{{ messages }}"]),
    "champions": Parser(read_champions, (AdapterError,), [b'{"api": "api-v1"}'], JSON),
    "keys": Parser(in_file(lambda path: FileKeys(path).read()), (KeysUnavailable,),
                   [b'{"keys": [{"key": "0123456789abcdef", "expires": "2027-01-01T00:00:00Z"}]}'],
                   JSON),
    "router": Parser(in_file(read_router), (RouterError,), [b"\x08\0\0\0\0\0\0\0{}      "], JSON),
    "redaction": Parser(redact, (), [b"a@b.example +49 30 5550123 known secret sk-abcdefghijklmno1",
                        b'{"password": "x", "n": 4111111111111111}'],
                        (*JSON, b"@", b"known secret", b"Bearer ", b"4111 1111 1111 1111", b"://")),
    "token": Parser(read_token, (Unauthenticated,), [TOKEN], (b".", b"=", b"eyJhbGciOiJub25lIn0")),
    **{
        f"rows of {name}": Parser(ROWS[name].read, (BadRow,), seeds, JSON)
        for name, seeds in {
            "openai": [js(OPENAI)], "alpaca": [js(ALPACA)], "sharegpt": [js(SHAREGPT)],
            "xlam": [js(XLAM)], "hermes": [js(SHAREGPT), TAGGED], "headrace": [js(OPENAI)],
        }.items()
    },
}  # fmt: skip
"""Name → parser."""


@st.composite
def inputs(draw: st.DrawFn, parser: Parser) -> bytes:
    """A seed in which pieces were exchanged for tokens or other bytes, or for pieces of its own."""
    content = draw(st.sampled_from(parser.seeds))
    tokens = st.sampled_from([*ANY, *parser.tokens])
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        width = draw(st.sampled_from([0, 0, 1, 2, 7, 60]))
        source = draw(st.integers(0, 3))
        if source == 0:
            new = draw(st.binary(max_size=4))
        elif source == 1:
            begin = draw(st.integers(0, len(content)))
            new = content[begin : begin + draw(st.integers(0, 80))]
        else:
            new = draw(tokens)
        content = content[:at] + new + content[at + width :]
    return content


def attempt(parser: Parser, content: bytes) -> None:
    """Read; whatever is raised that may not be goes on."""
    with contextlib.suppress(parser.raises):
        parser.read(content)


def run(name: str, examples: int, number: int) -> None:
    """Some inputs of a parser, what once failed first; raises what it must not raise."""
    parser = PARSERS[name]
    for kept in sorted((CORPUS / name).glob("*")):
        attempt(parser, kept.read_bytes())

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(parser))
    def fuzzed(content: bytes) -> None:
        attempt(parser, content)

    fuzzed()


# ---------------------------------------------------------------- the long form


def _for_minutes(name: str, minutes: float, number: int) -> str:
    until, tried, failed = time.monotonic() + 60 * minutes, 0, set[str]()
    while time.monotonic() < until:
        try:
            run(name, 200, number)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            if kind not in failed:
                print(f"  {name}: {kind}: {str(error)[:200]}", flush=True)
                print("   ", "\n    ".join(getattr(error, "__notes__", [])[:4])[:600], flush=True)
            failed.add(kind)
        tried, number = tried + 200, number + 1
    return f"| {name} | {tried} | {minutes:g} min | {len(failed)} |"


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--minutes", type=float, default=30, help="for each parser")
    given.add_argument("--only", action="append", choices=PARSERS, help="these parsers alone")
    given.add_argument("--seed", type=int, default=1)
    asked = given.parse_args()
    print("| parser | inputs | time | kinds of failures |\n|---|---|---|---|", flush=True)
    lines = [_for_minutes(name, asked.minutes, asked.seed) for name in asked.only or PARSERS]
    print("\n".join(lines))
    sys.exit(any(not line.endswith("| 0 |") for line in lines))


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    main()
