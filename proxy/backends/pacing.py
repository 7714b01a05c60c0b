"""How long an engine may take: to the first piece of an answer, between two, for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from proxy.backends.settings import EngineSettings
from proxy.errors import BackendTimeout, FirstTokenTimeout, StallTimeout, TotalTimeout

T = TypeVar("T")


async def paced(outputs: AsyncGenerator[T, None], settings: EngineSettings) -> AsyncIterator[T]:
    """The same outputs; raises BackendTimeout of the kind that says which wait was too long."""
    loop = asyncio.get_running_loop()
    over = loop.time() + settings.total_s
    patience = settings.first_token_s
    late: type[BackendTimeout] = FirstTokenTimeout
    while True:
        left = over - loop.time()
        try:
            # Around the wait alone: a timeout that stays open across a `yield` would strike the
            # consumer's work.
            async with asyncio.timeout(min(patience, left)):
                output = await anext(outputs, None)
        except TimeoutError as error:
            if left < patience:
                total = settings.total_s
                raise TotalTimeout(f"the answer was not over within {total:g} s") from error
            raise late(f"the engine sent nothing for {patience:g} s") from error
        if output is None:
            return
        yield output
        patience, late = settings.stall_s, StallTimeout
