"""Several workers behind one port: what they count adds up, and they end together."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from proxy.protocol import segments
from tests.scraping import scraped, total
from tests.scripted import ScriptedCloud, answer, completion, scripted_cloud
from tests.wire import ask, send

REQUESTS = 60
ROUTES = """
version: 1
models: [gpt-4o]
backends: {{cloud: {{kind: openai, base_url: '{url}'}}}}
domains: {{all: {{plan: [cloud]}}}}
defaults: {{tools: all, chat: all}}
record: {{directory: record, sync_s: 0.05}}
"""


@asynccontextmanager
async def serving(directory: Path, cloud: ScriptedCloud) -> AsyncIterator[tuple[str, int]]:
    """Two workers; their base URL and the process that started them."""
    (directory / "routes.yaml").write_text(ROUTES.format(url=cloud.base_url))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", "--port", "0", "--workers", "2"),
        *("--config", str(directory / "routes.yaml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        while not (line := (await process.stdout.readline()).decode()).startswith("base_url"):
            assert line, "the proxy did not start"
        url = line.split()[1]
        await until(partial(both_tell, url))
        yield url, process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def both_tell(url: str) -> bool:
    return (await send("GET", f"{url.removesuffix('/v1')}/metrics")).status == 200


def children(process: int) -> list[int]:
    return [int(id) for id in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def has_ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


@pytest.fixture
async def cloud() -> AsyncIterator[ScriptedCloud]:
    async with scripted_cloud() as made:
        made.plays(answer(completion({"role": "assistant", "content": "hi"})))
        yield made


async def asked(url: str) -> None:
    """Each request on a connection of its own, so that both workers get some."""
    answers = await asyncio.gather(*(ask(url) for _ in range(REQUESTS)))
    assert {one.status for one in answers} == {200}


async def test_counters_of_both_add_up_and_each_keeps_its_part_of_the_record(
    tmp_path: Path, cloud: ScriptedCloud
) -> None:
    async with serving(tmp_path, cloud) as (url, _):
        await asked(url)
        samples = await scraped(url, REQUESTS)
        buckets = total(samples, "gen_ai_server_request_duration_seconds_count")

        assert total(samples, "headrace_requests_total", status="200") == REQUESTS
        assert buckets == REQUESTS
        assert total(samples, "headrace_build_info") == 1

    assert len(list(segments.read(tmp_path / "record"))) == REQUESTS


async def test_a_worker_that_ends_takes_all_with_it(tmp_path: Path, cloud: ScriptedCloud) -> None:
    async with serving(tmp_path, cloud) as (_, process):
        first, second = await asyncio.to_thread(children, process)
        os.kill(first, signal.SIGKILL)

        await until(partial(asyncio.to_thread, has_ended, second))


async def test_workers_of_a_killed_starter_end_too(tmp_path: Path, cloud: ScriptedCloud) -> None:
    async with serving(tmp_path, cloud) as (_, process):
        workers = await asyncio.to_thread(children, process)
        os.kill(process, signal.SIGKILL)

        for worker in workers:
            await until(partial(asyncio.to_thread, has_ended, worker))


async def test_a_reload_that_one_is_asked_for_reaches_all(
    tmp_path: Path, cloud: ScriptedCloud
) -> None:
    async with serving(tmp_path, cloud) as (url, _):
        routes = tmp_path / "routes.yaml"
        # Of the same length and age, so that no worker sees by itself that it has changed.
        before = routes.stat()
        routes.write_text(routes.read_text().replace("[gpt-4o]", "[gpt-4x]"))
        os.utime(routes, ns=(before.st_atime_ns, before.st_mtime_ns))
        told = await send("POST", url.replace("/v1", "/admin/reload"))
        listed = await asyncio.gather(*(send("GET", f"{url}/models") for _ in range(REQUESTS)))

    assert (told.status, told.json["generation"]) == (200, 2)
    assert {one.json["data"][0]["id"] for one in listed} == {"gpt-4x"}


@asynccontextmanager
async def prometheus(
    directory: Path, target: str, port: int
) -> AsyncIterator[Callable[[str], Awaitable[bytes]]]:
    """A real Prometheus that scrapes `target`; gives what asks it a query."""
    (directory / "prometheus.yml").write_text(
        # No scrape may take longer than the interval, which a busy machine needs.
        "scrape_configs: [{job_name: headrace, scrape_interval: 5s,"
        f" static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    process = await asyncio.create_subprocess_exec(
        *("prometheus", f"--config.file={directory}/prometheus.yml"),
        *(f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def asks(query: str) -> bytes:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return await answer.read()
        except aiohttp.ClientConnectionError:
            return b""  # It is about to start.

    try:
        yield asks
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian's)")
async def test_a_real_prometheus_counts_what_the_client_counted(
    tmp_path: Path, cloud: ScriptedCloud, unused_tcp_port: int
) -> None:
    async with serving(tmp_path, cloud) as (url, _):
        await asked(url)
        target = url.removeprefix("http://").removesuffix("/v1")
        async with prometheus(tmp_path, target, unused_tcp_port) as asks:
            # Whoever asked for the numbers too early, above, was refused, and counts as such.
            query = 'sum(headrace_requests_total{status="200"})'

            async def has_counted_all() -> bool:
                return f'"{REQUESTS}"'.encode() in await asks(query)

            await until(has_counted_all)
