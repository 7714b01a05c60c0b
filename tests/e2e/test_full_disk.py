"""The disk is full for a while: requests are answered, it is told, nothing needs a restart."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.protocol.segments import read
from tests.scripted import KEPT, ScriptedCloud, answer, completion
from tests.serving import serving, settings
from tests.wire import ask, send

REQUESTS = 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


async def record_health(url: str) -> dict[str, object]:
    response = await send("GET", url.replace("/v1", "/ready"))
    assert response.status == 200
    return response.json["record"]


async def until(url: str, name: str, value: object) -> dict[str, object]:
    """The record's health once it says this."""
    async with asyncio.timeout(30):
        health = await record_health(url)
        while health[name] != value:
            health = await record_health(url)
    return health


async def test_full_disk_costs_no_request_and_no_exchange(cloud: ScriptedCloud, small_disk: Path):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"}), KEPT))
    extra = f"record: {{directory: {small_disk}/record, sync_s: 0.05}}"

    async with serving(settings(f"cloud={cloud.base_url}", extra=extra)) as url:
        before = await ask(url)
        await until(url, "written", 1)
        filler = fill(small_disk)
        during = [await ask(url, user="x" * 9000) for _ in range(REQUESTS)]
        told = await until(url, "problem", "No space left on device")
        filler.unlink()
        after = await ask(url)
        await until(url, "written", REQUESTS + 2)
        health = await until(url, "problem", None)

    assert {response.status for response in (before, *during, after)} == {200}
    assert told["errors"] > 0
    assert (health["problem"], health["dropped"], health["lost"]) == (None, 0, 0)
    assert len(list(read(small_disk / "record"))) == REQUESTS + 2


async def test_what_does_not_fit_into_the_queue_meanwhile_is_counted(
    cloud: ScriptedCloud, small_disk: Path
):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"}), KEPT))
    limits = "max_waiting: 5, sync_s: 0.05"
    extra = f"record: {{directory: {small_disk}/record, {limits}}}\nlimits: {{grace_s: 0.1}}"

    async with serving(settings(f"cloud={cloud.base_url}", extra=extra)) as url:
        await ask(url)
        await until(url, "written", 1)
        filler = fill(small_disk)
        for _ in range(REQUESTS):
            response = await ask(url, user="x" * 9000)
            assert response.status == 200
        told = await record_health(url)
        filler.unlink()
        health = await until(url, "waiting", 0)

    assert told["dropped"] > 0
    assert health["written"] + health["dropped"] == REQUESTS + 1
