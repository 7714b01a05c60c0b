"""What a worker loads: what its settings ask for, and no more."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from tests.scripted import answer, completion, scripted_cloud
from tests.wire import ask, send

ROUTES = """
version: 1
models: [gpt-4o]
backends:
  cloud: {{kind: openai, base_url: '{url}'}}
{more}
domains: {{all: {{plan: [cloud]}}}}
defaults: {{tools: all, chat: all}}
"""
TLS = "  further: {kind: openai, base_url: 'https://127.0.0.1:1/v1'}"
HI = answer(completion({"role": "assistant", "content": "hi"}))
_IMPORTED = re.compile(rb"^import time:.*\| +(\w+)\r?$", re.MULTILINE)


async def test_a_relay_over_plain_http_loads_no_library_that_it_has_no_use_for(
    tmp_path: Path,
) -> None:
    known = await loaded_for(tmp_path / "routes.yaml", "")

    assert "httptools" in known
    rare = {"aiohttp", "yarl", "jinja2", "pygments", "tokenizers", "numpy", "duckdb"}
    assert known & rare == set()


async def test_a_server_over_tls_has_its_client_loaded_at_the_start(tmp_path: Path) -> None:
    assert "aiohttp" in await loaded_for(tmp_path / "routes.yaml", TLS)


async def loaded_for(routes: Path, more: str) -> set[str]:
    """The packages that a worker has loaded when it has answered a chat, and passed a question
    on."""
    async with scripted_cloud() as cloud:
        cloud.plays(HI)
        await asyncio.to_thread(routes.write_text, ROUTES.format(url=cloud.base_url, more=more))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "importtime", "-m", "proxy", "serve", "--port", "0"),
            *("--config", str(routes)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        told = asyncio.create_task(process.stderr.read())
        try:
            while not (line := (await process.stdout.readline()).decode()).startswith("base_url"):
                assert line, "the proxy did not start"
            url = line.split()[1]
            assert (await ask(url)).status == 200
            assert (await send("GET", f"{url}/files")).status == 200
        finally:
            process.terminate()
            await process.wait()
        return {name.decode() for name in _IMPORTED.findall(await told)}
