from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from proxy.beside import beside


async def test_background_task_that_dies_takes_the_body_with_it():
    async def dying() -> None:
        raise ZeroDivisionError("why")

    with capture_logs() as lines, pytest.raises(ExceptionGroup):
        async with beside(dying(), "recorder"):
            await asyncio.sleep(60)

    assert (lines[0]["event"], lines[0]["task"]) == ("background_task_died", "recorder")


async def test_background_task_ends_with_the_body():
    ended = asyncio.Event()

    async def working() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with asyncio.timeout(1), beside(working(), "recorder"):
        await asyncio.sleep(0)

    assert ended.is_set()
