"""An answer that ends only when its exchange is on the disk (`record.durable: before_reply`).

A whole answer waits; of a streamed one, the last event does: a client that has seen `[DONE]`, or a
whole answer, knows that there is a record of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from proxy import sse
from proxy.cascade import Answer, Streamed, Whole

_END = sse.encode(sse.DONE).strip()


async def durable(answer: Answer, keep: Callable[[int], Awaitable[None]]) -> Answer:
    """The same answer; `keep` (given the HTTP status) is awaited before its end."""
    match answer:
        case Whole():
            await keep(answer.status)
            return answer
        case Streamed():
            content = _held_back(answer.content, lambda: keep(answer.status))
            return Streamed(answer.status, answer.headers, content)


async def _held_back(
    content: AsyncIterator[bytes], keep: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    end = b""
    async for piece in content:
        if end or _END in piece:
            end += piece
        else:
            yield piece
    await keep()
    if end:
        yield end
