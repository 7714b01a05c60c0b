"""An expert that is wrong three times in ten, and openai-python, which never notices."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI

from tests.rescue import Made, check_all_are_rescued
from tests.wire import TOOLS


@pytest.mark.parametrize("streams", [False, True])
async def test_every_client_gets_a_valid_call_and_the_record_names_every_failure(streams: bool):
    assert await check_all_are_rescued(_ask_all, streams) == 30


async def _ask_all(url: str, questions: int, streams: bool) -> list[Made]:
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        asked = (_asked(client, number, streams) for number in range(questions))
        return await asyncio.gather(*asked)


async def _asked(client: AsyncOpenAI, number: int, streams: bool) -> Made:
    question: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": str(number)}],
        "tools": msgspec.json.decode(TOOLS),
    }
    if streams:
        async with client.chat.completions.stream(**question) as events:
            completed = await events.get_final_completion()
    else:
        completed = await client.chat.completions.create(**question)
    (made,) = completed.choices[0].message.tool_calls or ()
    assert made.type == "function"
    return made.function.name, made.function.arguments
