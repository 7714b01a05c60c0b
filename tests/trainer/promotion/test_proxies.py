"""What proxies tell of a candidate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from trainer.errors import PromotionError
from trainer.promotion.proxies import Proxies
from trainer.promotion.steps import Loaded


@asynccontextmanager
async def telling(told: object, status: int = 200, **headers: str) -> AsyncIterator[str]:
    """A server whose /ready says this to who has the key."""

    async def ready(request: web.Request) -> web.Response:
        is_known = request.headers.get("authorization") == "Bearer secret"
        body = told if is_known else {"ready": True}
        return web.json_response(body, status=status, headers=headers)

    app = web.Application()
    app.add_routes([web.get("/ready", ready)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def loaded(url: str, key: str = "secret") -> Loaded:
    return await asyncio.to_thread(Proxies([url], key).loaded, "geo", "geo-v8")


def candidate(state: str, adapter: str = "geo-v8", reason: str = "") -> dict[str, object]:
    return {"candidates": {"geo": {"adapter": adapter, "state": state, "reason": reason}}}


async def test_proven_candidate_is_waited_for_no_longer():
    async with telling(candidate("proven")) as url:
        assert await loaded(url) == Loaded()
        assert await loaded(f"{url}/v1/") == Loaded()


async def test_proxy_that_is_not_ready_tells_all_the_same():
    async with telling(candidate("proven"), status=503) as url:
        assert await loaded(url) == Loaded()


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (candidate("loading", reason="server 2 is down"), "server 2 is down"),
        (candidate("proven", adapter="geo-v7"), "has not seen the candidate yet"),
        ({"candidates": {}}, "has not seen the candidate yet"),
        ({"candidates": 7}, "does not answer"),
    ],
)
async def test_what_is_waited_for_is_told(told, what):
    async with telling(told) as url:
        found = await loaded(url)

    assert found.refused == [] and found.waiting[0].startswith(url) and what in found.waiting[0]


async def test_refusal_is_told_with_its_reason():
    async with telling(candidate("refused", reason="its canary failed")) as url:
        assert (await loaded(url)).refused == [f"{url}: its canary failed"]


async def test_key_of_nobody_and_a_proxy_that_is_away_are_waited_for():
    async with telling(candidate("proven")) as url:
        unknown = await loaded(url, "wrong")
    gone = await loaded(url)

    assert "is the key an admin's?" in unknown.waiting[0]
    assert "does not answer" in gone.waiting[0]


async def test_key_goes_to_nobody_whom_the_proxy_names():
    async with (
        telling(candidate("proven")) as other,
        telling({}, status=302, location=f"{other}/ready") as url,
    ):
        found = await loaded(url)

    assert found.waiting


def test_address_of_something_else_is_refused():
    with pytest.raises(PromotionError, match="no address of a proxy"):
        Proxies(["file:///etc/passwd"])
