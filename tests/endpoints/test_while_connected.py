from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from proxy.endpoints import PATIENCE, ClientGone, while_connected


class Client:
    """What ASGI tells of a client that leaves at once; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        return {"type": "http.disconnect"}


async def test_client_that_leaves_ends_the_answer():
    client = Client()

    with pytest.raises(ClientGone):
        await while_connected(asyncio.sleep(60), client.receive)


async def test_nobody_else_listens_while_the_body_is_being_read():
    client, is_read = Client(), asyncio.Event()

    await while_connected(asyncio.sleep(3 * PATIENCE), client.receive, is_read)

    assert client.asked == 0


async def test_client_that_leaves_once_its_body_is_read_ends_the_answer():
    client, is_read = Client(), asyncio.Event()
    is_read.set()

    with pytest.raises(ClientGone):
        await while_connected(asyncio.sleep(60), client.receive, is_read)
