"""The parsers that are fuzzed, with what they may raise and what they are tried with (fuzz.py)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from proxy import gateway, sse
from proxy.auth import Caller
from proxy.backends.embedded import grammar, weights
from proxy.backends.embedded.header import HeaderError, ModelShape
from proxy.endpoints import feedback
from proxy.errors import BadConfig, BadRequest, Unauthenticated
from proxy.keys.base import KeysUnavailable
from proxy.keys.file import FileKeys
from proxy.protocol import parquet, segments
from proxy.protocol.adapter import AdapterError
from proxy.protocol.exchange import NewerRecord
from proxy.protocol.formats.base import Unrenderable, template
from proxy.protocol.openai import MalformedRequest
from proxy.protocol.router import RouterError
from proxy.protocol.router import read as read_router
from proxy.protocol.sealing import SealError
from tests.harden.readings import (
    HI,
    SCHEMA,
    TENSORS,
    TOKEN,
    in_adapter,
    in_bundle,
    in_file,
    js,
    read_answer,
    read_arguments,
    read_calls,
    read_champions,
    read_events,
    read_generated,
    read_grammar,
    read_http,
    read_page,
    read_parquet,
    read_posts,
    read_responses,
    read_routes,
    read_schema,
    read_segment,
    read_template_of_bundle,
    read_token,
    redact,
    render_source,
    render_text,
)
from tests.protocol.test_adapter import FILES, MANIFEST
from tests.record.examples import exchange
from tests.test_any_request import CHAT, RESPONSE
from trainer import recipe
from trainer.errors import RecipeError
from trainer.formats import FORMATS as ROWS
from trainer.formats.base import BadRow


class Parser(NamedTuple):
    """Something that reads bytes from outside."""

    read: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    """What it may raise."""
    seeds: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    """What means something to it."""


JSON = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"1e999", b"-0", b"\\u0000",
        b'"\\ud800"', b"[" * 3000, b'{"a":' * 3000, b"9" * 400, b'""')  # fmt: skip


def a_model() -> bytes:
    """The head of a GGUF file."""

    def text(said: bytes) -> bytes:
        return struct.pack("<Q", len(said)) + said

    sizes = {b"embedding_length": 8, b"block_count": 1, b"context_length": 9,
             b"attention.head_count": 2, b"attention.head_count_kv": 1}  # fmt: skip
    keys = [text(b"llama." + name) + struct.pack("<II", 4, n) for name, n in sizes.items()]
    tokens = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys) + 1)
    return head + b"".join(keys) + tokens


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
TGI = (
    b'data: {"token":{"id":1,"text":"a","logprob":-0.1,"special":false}}\n\n'
    b'data: {"token":{"id":2,"text":"b","special":true},"details":{"finish_reason":"length"}}\n\n'
)
CALLED = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"ping",'
    b'"arguments":"{}"}}]},"finish_reason":"tool_calls","logprobs":{"content":'
    b'[{"logprob":-1.5}]}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
)
TEXT = (
    b'data: {"choices":[{"text":"a","finish_reason":"stop","token_ids":[1],'
    b'"logprobs":{"token_logprobs":[-1.5,null]}}]}\n\ndata: [DONE]\n\n'
)
HTTP = (HI, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
        b"content-type: a/b; c=d\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n",
        b"HTTP/1.1 204 No\r\nconnection: close\r\n\r\n")  # fmt: skip
PAGE = b"""<html><body><h1>T<a class="headerlink">x</a></h1><section id="s"><h2>Of <!-- c -->a</h2>
<p>Say <code>a</code>:</p><div class="highlight-python"><div class="highlight"><pre>>>> a
1</pre></div></div></section><dl class="py function"><dt id="p.f"><span>f(a, *, b=1)</span>
<a class="headerlink">x</a></dt><dd><p>Does it.</p><dl class="field-list"><dt>Parameters</dt>
<dd><dl><dt>a</dt><dd>One.</dd></dl></dd></dl></dd></dl></body></html>"""
POSTS = b"""<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="2" Score="3" Tags="&lt;a&gt;" Title="How?" Body="&lt;p&gt;So&lt;/p&gt;"/>
  <row Id="2" PostTypeId="2" Score="3" Body="&lt;pre&gt;a&lt;/pre&gt;" ContentLicense="l" OwnerUserId="1" CreationDate="2020-01-01T00:00:00.000"/>
</posts>
"""  # noqa: E501  # a line of the file is a post
FEEDBACK = {"kind": "demonstration", "exchange_id": "a", "value": {"content": "Hi", "tool_calls": [
            {"function": {"name": "f", "arguments": "{}"}}]}}  # fmt: skip
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
    "segment": Parser(read_segment, (NewerRecord, SealError), [a_segment()],
                      (segments.MAGIC, b"\xff", b"1", b"\x28\xb5\x2f\xfd")),
    "parquet": Parser(read_parquet, (pa.ArrowException, OSError, ValueError, NewerRecord),
                      [a_parquet_file()], (b"PAR1", b"\xff\xff\xff\x7f")),
    "manifest": Parser(in_bundle("manifest.json"), (AdapterError,), [js(MANIFEST)],
                       (*JSON, b"../", b'"id"')),
    "canary": Parser(in_bundle("canary.json"), (AdapterError,), [FILES["canary.json"]], JSON),
    "bundle's template": Parser(read_template_of_bundle, (AdapterError,), [b"{{ messages }}"]),
    "adapter's config": Parser(in_adapter(weights.CONFIG_NAME), (weights.WeightsError,),
                               [js({"r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]})],
                               (*JSON, b'"use_rslora":true', b'"r":', b'"bias":', b'"gaussian"')),
    "adapter's weights": Parser(in_adapter(weights.WEIGHTS_NAME), (weights.WeightsError,),
                                [TENSORS], (b"lora_A", b'"BF16"', b'"shape":[', b"[0,4]", b"1e9",
                                            b"layers.9")),
    "champions": Parser(read_champions, (AdapterError,), [b'{"api": "api-v1"}'], JSON),
    "keys": Parser(in_file(lambda path: FileKeys(path).read()), (KeysUnavailable,),
                   [b'{"keys": [{"key": "0123456789abcdef", "expires": "2027-01-01T00:00:00Z"}]}'],
                   JSON),
    "router": Parser(in_file(read_router), (RouterError,), [b"\x08\0\0\0\0\0\0\0{}      "], JSON),
    "redaction": Parser(redact, (), [b"a@b.example +49 30 5550123 known secret sk-abcdefghijklmno1",
                        b'{"password": "x", "n": 4111111111111111}'],
                        (*JSON, b"@", b"known secret", b"Bearer ", b"4111 1111 1111 1111", b"://")),
    "token": Parser(read_token, (Unauthenticated,), [TOKEN], (b".", b"=", b"eyJhbGciOiJub25lIn0")),
    "http answer": Parser(read_http, (), HTTP,
                          (b"HTTP/1.1 200 OK\r\n", b"content-length: 2\r\n", b"0\r\n\r\n",
                           b"ff\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
                           b"upgrade: a\r\n", b"content-encoding: gzip\r\n", b"\r\n\r\n",
                           b"HTTP/1.1 101 S\r\n", b" :")),
    "engine's answer": Parser(read_generated, (), [TEXT, CALLED, TGI],
                              (*JSON, b'"error":{"code":404}', b'"usage":', b"data: ",
                               b'"_name":', b'"function":', b'"arguments":"{\\"a', b'"abort"')),
    "feedback": Parser(lambda body: js(feedback.parse(body, Caller("t", "c"))), (BadRequest,),
                       [js(FEEDBACK), b'{"kind":"boolean","value":true}'],
                       (*JSON, b'"boolean"', b'"value":')),
    "recipe": Parser(in_file(recipe.read), (RecipeError,),
                     [path.read_bytes() for path in sorted(recipe.RECIPES.glob("*.yaml"))], YAML),
    "model's head": Parser(in_file(ModelShape.read), (HeaderError,), [a_model()],
                           (b"GGUF", b"\xff" * 8, b"\x09\0\0\0", b"\x08\0\0\0", b"llama.")),
    "page of documentation": Parser(read_page, (), [PAGE],
                                    (b"<!-- a -->", b"<?a?>", b"<pre>", b"<dl class='py'>",
                                     b"<dt id=a>", b"<section>", b"<h2>", b"</p>", b"&#0;",
                                     b"<![CDATA[", b"<dd>")),
    "posts": Parser(read_posts, (), [POSTS],
                    (b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"&#0;", b"<row", b"/>",
                     b'Score="', b"&lt;!-- --&gt;", b'CreationDate="0001-01-01"')),
    **{
        f"rows of {name}": Parser(ROWS[name].read, (BadRow,), seeds, JSON)
        for name, seeds in {
            "openai": [js(OPENAI)], "alpaca": [js(ALPACA)], "sharegpt": [js(SHAREGPT)],
            "xlam": [js(XLAM)], "hermes": [js(SHAREGPT), TAGGED], "headrace": [js(OPENAI)],
        }.items()
    },
}  # fmt: skip
"""Name → parser."""


def attempt(parser: Parser, content: bytes) -> None:
    """Read; whatever is raised that may not be goes on."""
    with contextlib.suppress(parser.raises):
        parser.read(content)
