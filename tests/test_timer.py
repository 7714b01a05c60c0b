"""A timer ends what takes too long, and takes no other cancellation for its own."""

from __future__ import annotations

import asyncio

import pytest

from proxy.timer import Timer


async def test_what_takes_too_long_is_ended():
    with pytest.raises(TimeoutError), Timer(0.01) as timer:
        await asyncio.sleep(60)

    assert timer.has_expired
    assert not _cancelling()


@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_what_ends_in_time_goes_on(seconds: float | None):
    with Timer(seconds) as timer:
        await asyncio.sleep(0.01)

    assert not timer.has_expired


async def test_timer_that_is_left_strikes_no_more():
    with Timer(0.01):
        pass

    await asyncio.sleep(0.03)


@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_timer_that_is_set_anew_forgets_what_it_was_set_to(seconds: float | None):
    with Timer(0.01) as timer:
        timer.set(seconds)
        await asyncio.sleep(0.03)


async def test_timer_is_set_to_less():
    async def wait() -> None:
        with Timer(60) as timer:
            timer.set(0.01)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await wait()


async def test_of_two_timers_the_one_that_struck_ends_what_is_in_it():
    with Timer(60) as outer:
        with pytest.raises(TimeoutError), Timer(0.01):
            await asyncio.sleep(60)
        await asyncio.sleep(0)

    assert not outer.has_expired


async def test_error_that_came_first_stays_what_it_is():
    async def wait() -> None:
        with Timer(0.01):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ValueError("own") from None

    with pytest.raises(ValueError, match="own"):
        await wait()
    assert not _cancelling()


async def test_cancellation_by_somebody_else_is_not_the_timer_s():
    async def wait() -> None:
        with Timer(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_by_somebody_else_outlasts_the_timer_s():
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        with Timer(0.01):
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            try:
                await asyncio.sleep(60)
            finally:
                while task.cancelling() < 2:
                    # Another cancellation is under way, and shall find this task at work.
                    await asyncio.shield(asyncio.sleep(0))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())


def _cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()
