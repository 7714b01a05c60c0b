"""What `helm test` runs, run against a proxy on a real socket."""

from __future__ import annotations

import asyncio
import sys

import pytest

from proxy.backends.base import Text
from tests.deploy.conftest import EXAMPLES, pod_of
from tests.serving import Engine, call, finish, serving_with, settings

KEY = "0123456789abcdef"
AUTH = f"auth: {{keys: [{{key: {KEY}, tenant: default, name: app}}]}}"


def command(manifests):
    pod = next(m for m in manifests(EXAMPLES["cpu-demo"]) if m["kind"] == "Pod")
    (container,) = pod_of(pod)["containers"]
    return container["command"]


async def run(rendered, *events, key=KEY):
    """(exit code, output) of the command, when a proxy answers with these events."""
    python, flags, code, address, model, variable = rendered
    assert (python, address, variable) == ("python", "http://demo-headrace:80", "HEADRACE_KEY")
    config = settings("local", extra=AUTH)
    async with serving_with(config, Engine("local", list(events))) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, flags, code, url.removesuffix("/v1"), model, variable),
            env={variable: key},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.fixture
def rendered(manifests):
    return command(manifests)


async def test_release_that_calls_tools_passes(rendered):
    code, said = await run(rendered, call("get_weather", '{"city":"Oslo"}'), finish())

    assert (code, "get_weather" in said) == (0, True)


async def test_release_that_only_talks_fails(rendered):
    code, said = await run(rendered, Text("Rain."), finish())

    assert code == 1
    assert "502" in said or "no tool was called" in said


async def test_release_that_knows_another_key_fails(rendered):
    code, said = await run(rendered, Text("Rain."), finish(), key="another-key-than-that")

    assert (code, "401" in said) == (1, True)
