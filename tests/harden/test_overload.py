"""More than the proxy can take, for some seconds; `make overload` shows it for minutes.

How much is answered in which time is for `make overload` to say: here, that what is too much is
refused at once and in OpenAI's form, and that nothing of it is left.
"""

from __future__ import annotations

from tests.harden.overload import SERVICE_S, SLOTS, idle, load, stand, streams


async def test_what_is_too_much_is_refused_and_the_rest_is_answered():
    async with stand(SLOTS) as process:
        seen = await load(process, 2 * SLOTS / SERVICE_S, 2)
        after = await load(process, 10, 1)

    assert set(seen.statuses) == {200, 429}
    assert set(after.statuses) == {200}


async def test_idle_connections_and_streams_at_once_are_held():
    async with stand(110) as process:
        told = await idle(process, 300)
        whole, _ = await streams(process, 100, 0.2)

    assert told.startswith("300 idle connections: 300 open")
    assert whole == 100
