"""Little that becomes much: compressed, nested or repeated; and patterns that take for ever."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from proxy import attempt
from proxy.backends.base import Text
from proxy.domains import Defaults, Domain
from proxy.protocol import parquet, segments
from proxy.protocol.exchange import NewerRecord
from proxy.protocol.openai import ChatRequest as Request
from proxy.protocol.openai import Function, FunctionCall, Tool, ToolCall
from proxy.protocol.toolcheck import check, check_tools
from proxy.routing import RouteTable
from tests.record.examples import exchange
from tests.scripted import ScriptedCloud, head
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import ask, cloud_backend

MIB = 1024 * 1024


def gzip_bomb(mib: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(b" " * MIB) for _ in range(mib)] + [packer.flush()])


# ---------------------------------------------------------------- what is compressed


def test_frame_that_claims_a_giant_s_size_is_damage(tmp_path: Path):
    """The size in a zstd frame's head is believed by the library, whatever the bound."""
    whole = segments.Encoder().encode([exchange("a")])
    claim = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + b"\x01\x00\x00"
    bomb = struct.pack("<3sBII", segments.MAGIC, ord("1"), len(claim), zlib.crc32(claim)) + claim
    path = tmp_path / "a.segment"
    path.write_bytes(bomb + whole)
    damages: list[int] = []

    found = list(segments.read_segment(path, lambda _, offset: damages.append(offset)))

    assert [one.id for one in found] == ["a"]
    assert damages == [0]


def test_frame_that_unpacks_to_a_giant_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(segments, "MAX_FRAME", MIB)
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(b" " * 64 * MIB)
    frame = struct.pack("<3sBII", segments.MAGIC, ord("1"), len(packed), zlib.crc32(packed))
    (tmp_path / "a.segment").write_bytes(frame + packed)
    damages: list[int] = []

    tracemalloc.start()
    found = list(segments.read_segment(tmp_path / "a.segment", lambda *at: damages.append(at[1])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (found, damages) == ([], [0])
    assert peak < 16 * MIB


def test_row_of_an_archive_that_is_no_exchange_is_told():
    table = pa.Table.from_pylist(
        [{"exchange": "[" * 100_000, "sealed": None}], schema=pa.schema([
            ("exchange", pa.string()), ("sealed", pa.binary())])
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    batch = pq.read_table(pa.BufferReader(sink.getvalue())).to_batches()[0]

    with pytest.raises((NewerRecord, msgspec.DecodeError, RecursionError)):
        list(parquet.Rows().exchanges(batch))


async def test_cloud_s_error_that_unpacks_to_a_giant_is_read_as_far_as_an_error_goes(
    cloud: ScriptedCloud,
):
    content = gzip_bomb(64)
    length = f"content-length: {len(content)}"
    cloud.plays(
        head(400, "content-type: application/json", "content-encoding: gzip", length), content
    )

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url)

    # Packed though it was asked not to: nothing is unpacked, and it is no answer.
    assert response.status == 502
    assert len(response.content) < 1000


# ---------------------------------------------------------------- patterns


HARD = ["*a" * 30 + "b", "?*" * 60 + "b", "[a-z]*" * 40 + "0", "a*" * 100 + "b"]


@pytest.mark.parametrize("glob", HARD)
def test_glob_that_is_hard_to_match_is_matched_all_the_same(glob: str):
    domains = {"hard": Domain(plan=["x"], tools=[glob]), "all": Domain(plan=["x"])}
    table = RouteTable(domains, Defaults(tools="all", chat="all"), ["m"])
    request = Request(model="m", messages=[], tools=[Tool("function", Function("a" * 256))])

    assert table.match(request).domain == "all"


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|aa)+$", "(?=(a+)+b)a*c", r"^(\w+\s?)*$", "(a*)*b"]
)
def test_pattern_of_a_schema_that_backtracks_is_given_up(pattern: str):
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}}
    function = Function("f", parameters=msgspec.Raw(msgspec.json.encode(schema)))
    request = Request(model="m", messages=[], tools=[Tool("function", function)])
    call = ToolCall("1", FunctionCall("f", msgspec.json.encode({"x": "a" * 5000 + "!"}).decode()))

    check_tools(request)

    assert check([call], request) is not None


_JUDGE = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from proxy.outcomes import ErrorRule, OutcomeRules
for regex in ("^(a+)+$", "^(a|aa)+$", "(a*)*b", r"^(\\w+\\s?)*$", "(?=(a+)+b)a*c", r"(a*)*\\1b"):
    assert OutcomeRules([ErrorRule(regex=regex)]).judge("f", "a" * 16_383 + "!") == "ok"
"""


def test_no_result_takes_an_operator_s_pattern_longer_than_its_length():
    """A tool's result is whatever somebody's page or mail says."""
    ended = subprocess.run([sys.executable, "-c", _JUDGE], check=False)

    assert ended.returncode == 0


REDACTED = ["1", "@", "a@", "a.", "1-", "1 ", "sk-", "eyJ", "eyJa.", "Bearer ", "://", "a:a@", "+1",
            "DE1", "(", "1.", "[", '"', "\\", "password=", "-----BEGIN ", "A1", "AB12 ",
            "x.y@"]  # fmt: skip
_REDACT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from proxy.protocol.redact import Redactor
redactor = Redactor(b"k" * 32, known_secrets=["known"])
for unit in sys.argv[1:]:
    redactor.redact((unit * 60_000)[:60_000], "c")
"""


def test_no_text_takes_the_redaction_longer_than_its_length():
    """60 000 characters each: were one pattern quadratic, the processor time would not suffice."""
    ended = subprocess.run([sys.executable, "-c", _REDACT, *REDACTED], check=False)

    assert ended.returncode == 0


_COMPLAIN = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
import msgspec
from proxy.protocol.repair import repair
from proxy.protocol.openai import ChatRequest, Function, FunctionCall, Message, Tool, ToolCall
from proxy.protocol.toolcheck import check

options = {"items": {"enum": [{"k": n} for n in range(3000)]}}
schema = msgspec.Raw(msgspec.json.encode({"properties": {"a": options}}))
request = ChatRequest(
    model="m",
    messages=[Message(role="user")],
    tools=[Tool("function", Function("f", parameters=schema))],
)
calls = [ToolCall("1", FunctionCall("f", msgspec.json.encode({"a": [{}] * 3000}).decode()))]
assert check(calls, request).reason == "schema_violation"
assert repair(calls, request) is None
"""


def test_many_wrong_values_of_many_options_are_told_as_one():
    """All complaints would be nine million, and take half a minute each time."""
    ended = subprocess.run([sys.executable, "-c", _COMPLAIN], check=False)

    assert ended.returncode == 0


# ---------------------------------------------------------------- what has no end


async def test_whole_answer_of_a_cloud_is_held_up_to_a_bound(
    cloud: ScriptedCloud, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attempt, "MAX_WHOLE", MIB)
    begun = head(200, "content-type: application/json")
    endless = [begun, *[b" " * MIB] * 64]
    cloud.plays(*endless)

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url)

    assert (response.status, response.json["error"]["code"]) == (502, "backend_unavailable")


# ---------------------------------------------------------------- nesting


@pytest.mark.parametrize("depth", [100, 800, 100_000])
async def test_past_arguments_without_a_bottom_cost_no_answer(depth: int):
    """A history may hold any text as arguments; an engine shows it as text."""
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "[" * depth}}]
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "up"},
    ]
    async with serving_with(settings("local"), Engine("local", [Text("hi"), finish()])) as url:
        response = await ask(url, messages=messages)

    assert response.status in (200, 400)
