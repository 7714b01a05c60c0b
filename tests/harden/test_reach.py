"""Where the proxy connects to, what it reads and what it starts: nothing that a client names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from proxy.backends.base import Text
from proxy.catalog import BadAdapter, Base, Champions
from proxy.protocol import parquet, segments
from tests import scripted
from tests.harden.test_wire import said, statuses
from tests.record.examples import exchange
from tests.scripted import ScriptedCloud, completion
from tests.serving import Engine, finish, serving_with, settings
from tests.wire import ask, cloud_backend, send

ROOT = Path(__file__).parents[2]


@dataclass
class Trap:
    """A server that nobody has a reason to visit."""

    url: str = ""
    visits: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits.append(await reader.read(100))
        writer.close()


@pytest.fixture
async def trap() -> AsyncIterator[Trap]:
    trap = Trap()
    server = await asyncio.start_server(trap.serve, "127.0.0.1", 0)
    trap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/latest/meta-data"
    yield trap
    server.close()


# ---------------------------------------------------------------- requests of our own


def parts(url: str) -> list[dict[str, object]]:
    return [
        {"type": "text", "text": f"See {url}"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "file", "file": {"file_url": url}},
        {"type": "input_audio", "input_audio": {"url": url, "format": "wav"}},
    ]


@pytest.mark.parametrize("has_cloud", [False, True])
async def test_no_address_in_a_message_is_visited(
    cloud: ScriptedCloud, trap: Trap, has_cloud: bool
):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))
    local = Engine("local", [Text("hi"), finish()])
    plan = ["local", "cloud"] if has_cloud else ["local"]
    backends = [local, cloud_backend(cloud)] if has_cloud else [local]

    async with serving_with(settings(*plan), *backends) as url:
        response = await ask(url, messages=[{"role": "user", "content": parts(trap.url)}])

    assert response.status == (200 if has_cloud else 400)
    assert trap.visits == [] and local.asks == []


@pytest.mark.parametrize("keyword", ["$ref", "$schema", "$id", "$dynamicRef"])
async def test_no_address_in_a_schema_is_visited(trap: Trap, keyword: str):
    function = {"name": "f", "parameters": {keyword: trap.url, "type": "object"}}
    tools = [{"type": "function", "function": function}]
    engine = Engine("local", [Text("hi"), finish()])

    async with serving_with(settings("local"), engine) as url:
        response = await ask(url, tools=tools)

    assert response.status in (200, 400)
    assert trap.visits == []


@pytest.mark.parametrize(
    "head",
    [
        "GET {trap} HTTP/1.1\r\nhost: x",
        "GET /v1/files HTTP/1.1\r\nhost: {trap}",
        "GET /v1//{trap} HTTP/1.1\r\nhost: x",
        "GET /v1/{trap} HTTP/1.1\r\nhost: x",
        "GET /v1/@{host}/x HTTP/1.1\r\nhost: x",
        "GET /v1/files HTTP/1.1\r\nhost: x\r\nx-forwarded-host: {host}\r\nforwarded: host={host}",
        "GET /v1/files HTTP/1.1\r\nhost: x\r\nx-headrace-backend: {trap}",
        "CONNECT {host} HTTP/1.1\r\nhost: x",
    ],
)
async def test_no_target_or_header_makes_the_proxy_go_elsewhere(
    cloud: ScriptedCloud, trap: Trap, head: str
):
    cloud.plays(scripted.answer({"object": "list"}))
    host = trap.url.split("/")[2]
    told = head.format(trap=trap.url, host=host)

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        came = await said(url, f"{told}\r\nconnection: close\r\n\r\n".encode())

    assert len(statuses(came)) == 1
    assert trap.visits == []
    assert all(request.target.startswith("/v1/") for request in cloud.requests)


async def test_redirect_of_a_cloud_is_not_followed(cloud: ScriptedCloud, trap: Trap):
    cloud.plays(scripted.answer(b"", f"location: {trap.url}", status=307))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url)
        passed = await send("GET", f"{url}/files")

    assert (response.status, passed.status) == (502, 502)
    assert trap.visits == []


# ---------------------------------------------------------------- files


CLIMBING = ["..", "../x", "a/../../x", "/etc", ".", "", "a/b", "..\\x", "x\0y"]


@pytest.mark.parametrize("id", CLIMBING)
def test_champion_that_is_no_name_is_refused(tmp_path: Path, id: str):
    directory = tmp_path / "adapters"
    directory.mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    (directory / "champions.json").write_bytes(msgspec.json.encode({"api": id}))

    with pytest.raises((BadAdapter, ValueError)):
        Champions.read(directory, Base("m", None, "t"), ["api"])


@pytest.mark.parametrize("name", [*CLIMBING, "a=b", "%2e%2e", "date=1", "é"])
def test_whatever_a_record_calls_itself_its_file_stays_in_its_folder(name: str):
    where = parquet.partition(exchange(name, domain=name, tenant=name, request_id=name))

    kind, date, domain = where.split("/")
    assert (kind, date[:5], domain[:7]) == ("exchanges", "date=", "domain=")
    assert not re.search(r"[/\\\0]", domain.removeprefix("domain="))


def test_segment_s_name_has_nothing_of_what_is_in_it(tmp_path: Path):
    segment = segments.Segment(tmp_path)
    segment.append(segments.Encoder().encode([exchange("../../evil")]))
    segment.close()

    assert [path.parent for path in segments.segments(tmp_path)] == [tmp_path]


# ---------------------------------------------------------------- what is installed


LOCKS = sorted((ROOT / "scripts" / "locks").glob("*.txt"))


@pytest.mark.parametrize(
    "lock", [lock for lock in LOCKS if lock.stem != "torch"], ids=lambda p: p.stem
)
def test_every_package_is_pinned_to_its_bytes(lock: Path):
    """Its version and its hashes; torch's CPU build comes from where its index is chosen."""
    entries = re.split(r"\n(?=[a-zA-Z0-9])", lock.read_text().strip())
    loose = [
        entry.splitlines()[0]
        for entry in entries
        if not entry.startswith("#")
        and not re.match(r"[\w.\[\]-]+==\S+.*--hash=sha256:", entry, re.S)
    ]

    assert entries and loose == []
