"""`headrace top` beside a real proxy."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from proxy.__main__ import main
from proxy.dashboard.live import Live
from tests.dashboard.visiting import ADMIN, KEYS, USER
from tests.serving import Engine, call, finish, serving_with, settings
from tests.wire import ask

ONCE = ["--once", "--every", "0.3"]


def engine() -> Engine:
    return Engine("local", [call("ping", '{"host":"a"}'), finish()])


async def top(url: str, *options: str) -> int:
    return await asyncio.to_thread(main, ["top", "--url", url, *options])


async def test_once_as_json_is_one_object_of_what_came_meanwhile(capsys):
    async with serving_with(settings("local"), engine()) as url:
        await ask(url)
        looking = asyncio.create_task(top(url, *ONCE, "--json"))
        while not looking.done():
            await ask(url)
        status = await looking

    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("{"))
    live = msgspec.json.decode(line, type=Live)
    assert status == 0
    assert live.requests_per_s > 0 and live.over_s >= 0.3
    assert [(pace.domain, pace.backend) for pace in live.paces] == [("all", "local")]
    assert live.paces[0].p50_s is not None


async def test_for_people_it_is_a_table_without_colours_where_it_is_piped(capsys):
    async with serving_with(settings("local"), engine()) as url:
        await ask(url)
        status = await top(url.removesuffix("/v1"), *ONCE)

    told = capsys.readouterr().out
    assert status == 0 and "\x1b" not in told
    assert "requests/s" in told and "record:" in told
    assert [line.split()[:2] for line in told.splitlines() if line.startswith("all")] == [
        ["all", "local"]
    ]


@pytest.mark.parametrize(
    ("key", "status", "told"),
    [(None, 1, "status 401"), (USER, 1, "status 403"), (ADMIN, 0, "")],
)
async def test_key_comes_from_the_environment(monkeypatch, capsys, key, status, told):
    monkeypatch.delenv("HEADRACE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("HEADRACE_KEY", key)

    async with serving_with(settings("local", extra=KEYS), engine()) as url:
        assert await top(url, *ONCE) == status

    error = capsys.readouterr().err
    assert told in error and (not told or "HEADRACE_KEY" in error)
    assert USER not in error


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--url", "http://127.0.0.1:1"], 1, "is it a running proxy?"),
        (["--url", "file:///etc/passwd"], 2, "an address like"),
        (["--every", "0"], 2, "more than 0"),
    ],
)
def test_what_cannot_be_done_is_told_on_one_line(capsys, options, status, told):
    assert main(["top", *ONCE, *options]) == status

    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
