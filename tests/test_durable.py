"""With `before_reply`, whoever has the end of an answer knows that there is a record of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.cascade import Streamed, Whole
from proxy.durable import durable
from proxy.protocol.segments import read
from tests.scripted import ScriptedCloud, answer, chunk, completion, stream
from tests.serving import serving, settings
from tests.wire import ask


def durable_record(cloud: ScriptedCloud, directory: Path) -> str:
    return f"record: {{directory: {directory}, durable: before_reply, sync_s: 60}}"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_answer_ends_after_its_exchange_is_on_the_disk(
    cloud: ScriptedCloud, tmp_path: Path, is_streamed: bool
):
    cloud.plays(answer(completion({"content": "hi"})))
    if is_streamed:
        cloud.scripts = [tuple(stream(chunk({"content": "hi"}), chunk({}, "stop")))]
    config = settings(f"cloud={cloud.base_url}", extra=durable_record(cloud, tmp_path / "record"))

    async with serving(config) as url:
        response = await ask(url, stream=is_streamed)
        found = list(read(tmp_path / "record"))

    assert response.status == 200
    assert [(one.status, one.outcome) for one in found] == [(200, "completed")]


async def test_without_a_record_there_is_no_answer(cloud: ScriptedCloud, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    cloud.plays(answer(completion({"content": "hi"})))
    extra = durable_record(cloud, tmp_path / "file") + "\nlimits: {grace_s: 0.1, deadline_s: 0.5}"
    config = settings(f"cloud={cloud.base_url}", extra=extra)

    async with serving(config) as url:
        response = await ask(url)

    assert response.status in (503, 504)
    assert b"hi" not in response.content


async def test_pieces_flow_and_only_the_end_waits():
    kept = asyncio.Event()
    passed: list[bytes] = []

    async def content() -> AsyncIterator[bytes]:
        for piece in (b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"):
            yield piece

    async def keep(status: int) -> None:
        passed.append(b"kept %d" % status)
        kept.set()

    lasting = await durable(Streamed(200, {}, content()), keep)
    async for piece in lasting.content:
        passed.append(piece)

    assert passed == [b"data: 1\n\n", b"data: 2\n\n", b"kept 200", b"data: [DONE]\n\n"]


async def test_whole_answer_waits():
    statuses: list[int] = []

    async def keep(status: int) -> None:
        statuses.append(status)

    whole = Whole(404, {}, b"no")

    assert await durable(whole, keep) is whole
    assert statuses == [404]
