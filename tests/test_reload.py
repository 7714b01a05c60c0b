"""A real `headrace serve`, whose settings change while it answers."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from starlette.types import Receive, Scope, Send

from proxy import reload
from proxy.app import running
from proxy.config import parse
from proxy.errors import BadConfig, CannotStart
from proxy.quotas.memory import MemoryLedger
from proxy.reload import Live, live
from tests import scripted
from tests.scraping import scraped, total
from tests.scripted import Pause, ScriptedCloud, completion
from tests.serving import listening
from tests.test_main import run, served
from tests.wire import Response, ask, send

KEY = {"authorization": "Bearer key-of-the-operator-1"}


def text(cloud: ScriptedCloud, models: str = "gpt-4o", extra: str = "") -> str:
    return (
        f"version: 1\nmodels: [{models}]\n"
        f"backends:\n  cloud: {{kind: openai, base_url: '{cloud.base_url}'}}\n"
        f"domains: {{all: {{plan: [cloud], tools: [ping]}}}}\n"
        f"defaults: {{tools: all, chat: all}}\n{extra}"
    )


@pytest.fixture
def routes(tmp_path: Path, cloud: ScriptedCloud) -> Path:
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))
    path = tmp_path / "routes.yaml"
    path.write_text(text(cloud))
    return path


class Circle:
    """A proxy that hangs together in a circle, as a real one does."""

    def __init__(self) -> None:
        self.app = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(app=self, endpoint=self)

    def begin_draining(self) -> None:
        pass


@asynccontextmanager
async def started(_: Live) -> AsyncIterator[Circle]:
    yield Circle()


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    """Nothing is collected but by who asks for it."""
    gc.disable()
    yield
    gc.enable()


async def models(url: str) -> list[str]:
    listed = await send("GET", f"{url}/models", headers=KEY)
    return [model["id"] for model in listed.json["data"]]


async def until_models(url: str, *expected: str) -> None:
    async with asyncio.timeout(15):
        while await models(url) != list(expected):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def reloaded(url: str) -> Response:
    return await send("POST", url.replace("/v1", "/admin/reload"), headers=KEY)


def write(path: Path, content: str) -> None:
    """In place."""
    path.write_text(content)


def write_unseen(path: Path, content: str) -> None:
    """Of the same length and age: only a signal tells that it has changed."""
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def spoil(path: Path, content: str | None) -> None:
    """Other content, or none at all."""
    path.unlink() if content is None else path.write_text(content)


def replace(path: Path, content: str) -> None:
    """As editors and Kubernetes do: whole, or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(content)
    os.replace(beside, path)


# ---------------------------------------------------------------- the ways to ask for it


async def test_changed_file_is_followed(routes: Path, cloud: ScriptedCloud):
    async with served(routes) as server:
        replace(routes, text(cloud, "gpt-4o, more"))

        await until_models(server.base_url, "gpt-4o", "more")


async def test_hangup_reads_the_file_anew(routes: Path, cloud: ScriptedCloud):
    async with served(routes) as server:
        write_unseen(routes, text(cloud, "gpt-4x"))
        server.process.send_signal(signal.SIGHUP)

        await until_models(server.base_url, "gpt-4x")


async def test_change_is_read_once_whoever_asked_for_it(routes: Path, monkeypatch):
    monkeypatch.setattr(reload, "_LOOK_S", 0.01)
    async with live(routes, started, 0) as it:
        write(routes, "changed")
        await it.reload()
        await asyncio.sleep(0.3)

        assert it.told.generation == 2


async def test_what_a_former_proxy_held_is_given_back(routes: Path, collected_by_hand: None):
    began: list[weakref.ref[Circle]] = []

    @asynccontextmanager
    async def start(_: Live) -> AsyncIterator[Circle]:
        circle = Circle()
        began.append(weakref.ref(circle))
        yield circle

    idle: Scope = {"type": "http"}
    async with live(routes, start, 0) as it:
        await it(idle, None, None)
        await it.reload()
        async with asyncio.timeout(15):
            while began[0]() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        assert began[1]() is not None


async def test_operator_s_request_says_what_it_came_to(routes: Path, cloud: ScriptedCloud):
    async with served(routes) as server:
        write(routes, text(cloud, "other"))
        answer = await reloaded(server.base_url)
        now = await models(server.base_url)

    assert (answer.status, answer.json["problem"]) == (200, None)
    assert answer.json["generation"] >= 2
    assert now == ["other"]


async def test_others_may_not(cloud: ScriptedCloud, routes: Path):
    keys = "auth: {keys: [{key: key-of-somebody-123, tenant: a}]}"
    write(routes, text(cloud, extra=keys))
    async with served(routes) as server:
        url = server.base_url.replace("/v1", "/admin/reload")
        refused = await send("POST", url, headers={"api-key": "key-of-somebody-123"})
        unknown = await send("POST", url)

    assert (refused.status, unknown.status) == (403, 401)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("version: 1\nmodls: [x]\n", "routes.yaml:2:1: $: "),
        ("{", "line 2, column 1"),
        (None, "No such file"),
        (
            "version: 1\nmodels: [x]\nbackends: {a: {kind: embedded, base_model: none}}\n"
            "domains: {all: {plan: [a]}}\ndefaults: {tools: all, chat: all}\n",
            "none",
        ),
    ],
)
async def test_last_good_settings_stay(routes: Path, content: str | None, why: str):
    async with served(routes) as server:
        spoil(routes, content)
        answer = await reloaded(server.base_url)
        still = await ask(server.base_url)
        ready = await send("GET", server.base_url.replace("/v1", "/ready"))
        await server.stop()
        log = (await server.process.stderr.read()).decode()

    assert answer.status == 409
    assert why in answer.json["problem"]
    assert still.status == 200
    assert ready.status == 200
    assert why in ready.json["settings"]["problem"]
    assert '"event":"reload_refused"' in log


async def test_open_door_is_refused_when_others_can_reach_it(routes: Path, cloud: ScriptedCloud):
    keys = "auth: {keys: [{key: key-of-the-operator-1, admin: true}]}"
    write(routes, text(cloud, extra=keys))
    async with served(routes, "--host", "0.0.0.0") as server:
        write(routes, text(cloud))
        answer = await reloaded(server.base_url.replace("0.0.0.0", "127.0.0.1"))

    assert answer.status == 409
    assert "auth.keys" in answer.json["problem"]


# ---------------------------------------------------------------- requests do not notice


async def test_request_ends_with_the_settings_that_it_came_to(routes: Path, cloud: ScriptedCloud):
    slow = scripted.answer(completion({"role": "assistant", "content": "late"}))
    cloud.scripts.clear()
    cloud.plays(Pause(1), slow)
    async with served(routes) as server:
        asking = asyncio.create_task(ask(server.base_url))
        await cloud.arrived.wait()
        write(routes, text(cloud, "other"))
        swapped = await reloaded(server.base_url)
        unknown = await ask(server.base_url)
        answered = await asking

    assert swapped.status == 200
    assert unknown.status == 404
    assert answered.json["choices"][0]["message"]["content"] == "late"


async def test_no_request_fails_while_settings_change_again_and_again(
    routes: Path, cloud: ScriptedCloud
):
    async with served(routes) as server:
        done = asyncio.Event()

        async def asks() -> list[int]:
            statuses = []
            while not done.is_set():
                statuses.append((await ask(server.base_url)).status)
            return statuses

        asking = [asyncio.create_task(asks()) for _ in range(3)]
        for number in range(5):
            write(routes, text(cloud, f"gpt-4o, m{number}"))
            assert (await reloaded(server.base_url)).status == 200
        done.set()
        statuses = [status for answers in await asyncio.gather(*asking) for status in answers]

    assert set(statuses) == {200}
    assert len(statuses) > 5


async def test_what_callers_used_is_not_forgotten(routes: Path, cloud: ScriptedCloud):
    limits = "limits: {quotas: [{requests_per_minute: 2}]}"
    write(routes, text(cloud, extra=limits))
    async with served(routes) as server:
        first = [(await ask(server.base_url)).status for _ in range(2)]
        await reloaded(server.base_url)
        after = (await ask(server.base_url)).status

    assert (first, after) == ([200, 200], 429)


async def test_what_was_counted_is_not_forgotten(routes: Path, cloud: ScriptedCloud):
    async with served(routes) as server:
        await ask(server.base_url)
        await reloaded(server.base_url)
        await ask(server.base_url)
        samples = await scraped(server.base_url, requests=2)

    assert total(samples, "headrace_requests_total") == 2
    assert total(samples, "headrace_attempts_total", outcome="completed") == 2


async def test_server_on_its_way_out_stays_so(routes: Path, cloud: ScriptedCloud):
    def start(it: Live):
        return running(parse(routes.read_text(), routes.parent, {}), MemoryLedger(), it)

    async with live(routes, start, 5) as proxies, listening(proxies) as url:
        proxies.begin_draining()
        await proxies.reload()
        ready = await send("GET", url.replace("/v1", "/ready"))

    assert (ready.status, ready.json["draining"]) == (503, True)


async def test_start_that_fails_says_why(routes: Path):
    def start(it: Live):
        raise BadConfig("no, for this reason")

    with pytest.raises(ExceptionGroup) as caught:
        async with live(routes, start, 5):
            pass

    assert caught.group_contains(CannotStart, match="for this reason")


# ---------------------------------------------------------------- startup, explain


async def test_startup_is_told_once_there_was_a_backend(routes: Path):
    async with served(routes) as server:
        answer = await send("GET", server.base_url.replace("/v1", "/startup"))

    assert (answer.status, answer.json) == (200, {"started": True})


BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "x"}],
    "tools": [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in ("ping", "pong")
    ],
}


async def test_running_server_explains_where_a_request_would_go(routes: Path, cloud: ScriptedCloud):
    async with served(routes) as server:
        url = server.base_url.replace("/v1", "/admin/explain")
        answer = await send("POST", url, msgspec.json.encode(BODY))

    assert answer.json["domain"] == "all"
    assert answer.json["tools"] == [
        {"name": "ping", "domain": "all", "reason": "exact"},
        {"name": "pong", "domain": None, "reason": None},
    ]
    assert answer.json["reason"] == "mixed"
    assert answer.json["plan"] == [{"backend": "cloud", "ready": True}]
    assert cloud.requests == []


async def test_command_explains_without_a_server(routes: Path, tmp_path: Path):
    write(tmp_path / "request.json", msgspec.json.encode(BODY).decode())
    command = ("headrace", "routes", "explain", tmp_path / "request.json", "--config", routes)

    code, out, _ = await run(*command)
    _, as_json, _ = await run(*command, "--json")

    assert code == 0
    assert "tool    ping: all (exact)" in out
    assert "tool    pong: no domain" in out
    assert "plan 1  cloud" in out
    assert msgspec.json.decode(as_json)["why"].startswith("its tools belong to several domains")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", "no chat request"),
        ('{"model": "x", "messages": [{"role": "user", "content": "x"}]}', "does not exist"),
        (None, "No such"),
    ],
)
async def test_request_that_is_none_is_told(
    routes: Path, tmp_path: Path, body: str | None, why: str
):
    if body is not None:
        write(tmp_path / "request.json", body)

    code, _, err = await run(
        "headrace", "routes", "explain", tmp_path / "request.json", "--config", routes
    )

    assert code == 2
    assert why in err


async def test_server_that_stops_waits_for_no_successor(routes: Path, cloud: ScriptedCloud):
    """A successor that takes its time, as embedded engines do, is given up when the server ends."""
    is_starting = asyncio.Event()
    settings = parse(text(cloud), routes.parent, {})

    @asynccontextmanager
    async def start(it: Live):
        if it.told.generation:
            is_starting.set()
            await asyncio.sleep(0.5)
        async with running(settings, MemoryLedger(), it) as proxy:
            yield proxy

    async with asyncio.timeout(10), live(routes, start, 5) as proxies:
        proxies.want()
        await is_starting.wait()
