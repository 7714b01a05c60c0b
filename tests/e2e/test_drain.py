"""A proxy is told to stop while it streams a hundred answers: none is cut, and all are recorded."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from proxy.protocol.segments import read
from tests.scripted import ScriptedCloud, Until, chunk, stream
from tests.test_main import served
from tests.wire import body

STREAMS = 100


async def streamed(
    session: aiohttp.ClientSession, base_url: str, begun: asyncio.Semaphore
) -> bytes:
    """A whole stream; `begun` is told when its first piece is there."""
    sent = body(stream=True)
    async with session.post(f"{base_url}/chat/completions", json=sent) as response:
        first = await response.content.readany()
        begun.release()
        return first + await response.content.read()


async def test_stopping_cuts_no_stream_and_takes_no_new_ones(cloud: ScriptedCloud, tmp_path: Path):
    told = asyncio.Event()
    first = chunk({"role": "assistant", "content": "first"})
    cloud.plays(*stream(first, Until(told), chunk({"content": "last"}, "stop")))
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"version: 1\nmodels: [gpt-4o]\n"
        f"backends: {{cloud: {{kind: openai, base_url: '{cloud.base_url}'}}}}\n"
        f"domains: {{all: {{plan: [cloud]}}}}\ndefaults: {{tools: all, chat: all}}\n"
        f"limits: {{grace_s: 20}}\nrecord: {{directory: record}}\n"
    )
    begun = asyncio.Semaphore(0)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        served(routes, "--log-level", "error") as server,
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as tasks,
    ):
        running = [
            tasks.create_task(streamed(session, server.base_url, begun)) for _ in range(STREAMS)
        ]
        for _ in range(STREAMS):
            await begun.acquire()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        async with aiohttp.ClientSession() as late:
            with pytest.raises(aiohttp.ClientConnectionError):
                await late.post(f"{server.base_url}/chat/completions", json=body())
        assert server.process.returncode is None
        told.set()
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*running)
            code = await server.process.wait()

    assert code == 0
    assert {answer.endswith(b"data: [DONE]\n\n") for answer in answers} == {True}
    assert {b"last" in answer for answer in answers} == {True}
    assert [exchange.outcome for exchange in read(tmp_path / "record")] == ["completed"] * STREAMS
