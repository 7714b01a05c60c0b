"""The servers that the clients meet: Headrace in front of each kind of backend, on real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.app import assemble, running
from proxy.catalog import Catalog
from proxy.config import Config
from tests.clients.upstream import RETRY_AFTER_S, Cloud, Local, Visits, visits
from tests.scripted import reachable
from tests.serving import listening, settings

KEY = "a-key-of-the-client-matrix"
_BUSY = "busy"
"""Tag of what Headrace itself refuses."""

Plan = dict[str, Any]


class Places(NamedTuple):
    """Where everything is."""

    plan: Plan
    """What each program is told; see tests/clients/python/program.py."""
    busy: Busy


@asynccontextmanager
async def places() -> AsyncIterator[Places]:
    """All servers, up and running."""
    ledger = visits()
    cloud, local = Cloud(ledger), Local("local", ledger)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reachable(cloud))
        openai = await stack.enter_async_context(_relaying(f"{cloud.root}/v1"))
        azure = await stack.enter_async_context(_relaying(f"{cloud.root}/azure/v1"))
        generated = await stack.enter_async_context(_generating(local))
        busy, busy_url = await stack.enter_async_context(_full(local, ledger))
        sides = {"openai": openai, "azure": azure, "local": generated}
        plan = {
            "sides": sides,
            "retries": {
                "openai": {"url": openai, "after_s": RETRY_AFTER_S},
                "local": {"url": busy_url, "after_s": 1.0, "tag": _BUSY},
            },
            "breaks": {"openai": "the backend", "azure": "the backend", "local": "the engine"},
            "errors": [_case(about, sides) for about in _ERRORS],
            "control": cloud.root,
            "key": KEY,
        }
        yield Places(plan, busy)


def _config(*backends: str, max_in_flight: int = 100) -> Config:
    limits = f"{{max_body_mib: 0.125, max_in_flight: {max_in_flight}}}"
    return settings(*backends, extra=f"auth: {{keys: [{{key: {KEY}}}]}}\nlimits: {limits}")


@asynccontextmanager
async def _relaying(base_url: str) -> AsyncIterator[str]:
    async with running(_config(f"cloud={base_url}")) as proxy, listening(proxy.app) as url:
        yield url


@asynccontextmanager
async def _generating(local: Local) -> AsyncIterator[str]:
    app = assemble(_config("local"), Catalog({"local": local}, {}), None).app
    async with listening(app) as url:
        yield url


# ---------------------------------------------------------------- what goes wrong

_CASE: Plan = {
    "side": "openai",
    "scenario": "text",
    "key": KEY,
    "model": "gpt-4o",
    "headers": {},
    "padding": 0,
}
_ERRORS: list[Plan] = [
    {"status": 400, "scenario": "status-400", "says": "It was scripted."},
    {"status": 401, "key": "wrong-key-of-some-length", "says": "API key is not known"},
    {"status": 403, "headers": {"x-headrace-adapter": "base"}, "says": "admin"},
    {"status": 404, "model": "gpt-9", "says": "gpt-9"},
    {"status": 409, "scenario": "status-409", "says": "It was scripted."},
    {"status": 413, "padding": 200_000, "says": "limits.max_body_mib"},
    {"status": 415, "headers": {"content-encoding": "br"}, "says": "content-encoding"},
    {"status": 422, "scenario": "status-422", "says": "It was scripted."},
    {"status": 429, "scenario": "status-429", "says": "429"},
    {"status": 500, "scenario": "broken", "side": "local", "says": "something went wrong"},
    {"status": 502, "scenario": "status-500", "says": "answered 500"},
    {"status": 503, "scenario": "full", "side": "local", "says": "no room"},
    {"status": 504, "scenario": "status-408", "says": "answered 408"},
]
"""How each status comes about: some are Headrace's own, some the cloud's. `says` is a part of what
the client must be told."""


def _case(about: Plan, sides: dict[str, str]) -> Plan:
    case = _CASE | about
    return case | {"url": sides[case["side"]]}


class Busy:
    """An app whose only slot is taken at every first request, and free again at every second."""

    def __init__(self, app: ASGIApp, ledger: Visits) -> None:
        self.base_url = ""
        self._app = app
        self._ledger = ledger
        self._is_turned_away = False

    def reset(self) -> None:
        """The next request is a first one."""
        self._is_turned_away = False
        self._ledger.pop(_BUSY, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (b"x-holds", b"1") in scope["headers"]:
            await self._app(scope, receive, send)
            return
        self._is_turned_away = not self._is_turned_away
        if not self._is_turned_away:
            self._ledger[_BUSY].note()
            await self._app(scope, receive, send)
            return
        async with self._slot_taken():
            await self._app(scope, receive, self._noting(send))

    def _noting(self, send: Send) -> Send:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # From here on the client waits.
                self._ledger[_BUSY] = type(self._ledger[_BUSY])()
                self._ledger[_BUSY].note()
            await send(message)

        return noted

    @asynccontextmanager
    async def _slot_taken(self) -> AsyncIterator[None]:
        content = {"model": "gpt-4o", "stream": True}
        content |= {"messages": [{"role": "user", "content": "[[slow holder]]"}]}
        headers = {"authorization": f"Bearer {KEY}", "x-holds": "1"}
        url = f"{self.base_url}/chat/completions"
        self._ledger.pop("holder", None)
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url, json=content) as answer,
        ):
            await answer.content.readany()
            yield
        await self._ledger["holder"].left.wait()


@asynccontextmanager
async def _full(local: Local, ledger: Visits) -> AsyncIterator[tuple[Busy, str]]:
    config = _config("local", max_in_flight=1)
    busy = Busy(assemble(config, Catalog({"local": local}, {}), None).app, ledger)
    async with listening(busy) as url:
        busy.base_url = url
        yield busy, url
