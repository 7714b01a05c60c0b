"""Another server runs Headrace too: here uvicorn's own command, as an operator would type it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.asgi import SETTINGS
from proxy.protocol.segments import read
from proxy.server import bind
from tests.scripted import answer, completion, scripted_cloud
from tests.wire import ask

KEY = "a-key-that-is-long-enough"
ROUTES = """
version: 1
models: [gpt-4o]
backends: {{cloud: {{kind: openai, base_url: '{url}'}}}}
domains: {{all: {{plan: [cloud]}}}}
defaults: {{tools: all, chat: all}}
record: {{directory: '{record}'}}
"""
AUTH = f"auth: {{keys: [{{key: {KEY}, tenant: acme, name: shop}}]}}\n"
HI = answer(completion({"role": "assistant", "content": "hi"}))


async def test_another_server_starts_and_ends_it(tmp_path: Path) -> None:
    async with scripted_cloud() as cloud:
        cloud.plays(HI)
        write(tmp_path, cloud.base_url, AUTH)
        async with uvicorn(tmp_path) as (process, url, told):
            await told.readuntil(b"Uvicorn running")
            unknown = await ask(url)
            known = await ask(url, {"authorization": f"Bearer {KEY}"})
            process.terminate()
            await process.wait()

    assert (unknown.status, known.status) == (401, 200)
    assert [one.tenant for one in read(tmp_path / "record")] == ["acme"]


async def test_settings_without_keys_are_refused_where_nobody_knows_who_can_ask(
    tmp_path: Path,
) -> None:
    write(tmp_path, "http://127.0.0.1:9", "")

    async with uvicorn(tmp_path) as (process, _, told):
        async with asyncio.timeout(60):
            said = (await told.readuntil(b"Exiting.")).decode()
            code = await process.wait()

    assert code != 0
    assert "headrace: no key is needed to get in; add one under auth.keys" in said


def write(directory: Path, url: str, more: str) -> None:
    text = ROUTES.format(url=url, record=directory / "record") + more
    (directory / "routes.yaml").write_text(text)


@asynccontextmanager
async def uvicorn(
    directory: Path,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, asyncio.StreamReader]]:
    """The server's command, where it answers, and what it prints."""
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        os.set_inheritable(bound.fileno(), True)
        port = bound.getsockname()[1]
        process = await started(directory, bound)
    assert process.stderr is not None
    try:
        yield process, f"http://127.0.0.1:{port}/v1", process.stderr
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def started(directory: Path, bound: socket.socket) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "proxy.asgi:app", "--fd", str(bound.fileno())),
        env={**os.environ, SETTINGS: str(directory / "routes.yaml")},
        pass_fds=[bound.fileno()],
        stderr=asyncio.subprocess.PIPE,
    )
