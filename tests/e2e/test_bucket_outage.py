"""The bucket is away for a while: requests do not notice, and all is shipped when it is back.

HEADRACE_OUTAGE_S says for how many seconds (`make test-long`: 60).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.record.shelf import Shelf
from tests.record.buckets import Bucket, bucket
from tests.scripted import KEPT, ScriptedCloud, answer, completion
from tests.test_main import ROOT, run, served
from tests.wire import ask

SECONDS = float(os.environ.get("HEADRACE_OUTAGE_S", "1"))
"""How long requests are sent: while the bucket is there, away, and back."""
RATE = 60
"""Requests a second."""


@pytest.fixture
def s3() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


async def milliseconds(base_url: str) -> list[float]:
    """How long each of some requests takes, one after the other."""
    took = []
    for _ in range(int(SECONDS * RATE)):
        await asyncio.sleep(1 / RATE)
        began = time.perf_counter()
        response = await ask(base_url)
        assert response.status == 200
        took.append((time.perf_counter() - began) * 1000)
    return took


def p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


async def test_outage_of_the_bucket_is_nobody_s_problem(
    cloud: ScriptedCloud, tmp_path: Path, s3: Bucket, capsys: pytest.CaptureFixture[str]
):
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"}), KEPT))
    options = ", ".join(f"{name}: '{value}'" for name, value in s3.options.items())
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"version: 1\nmodels: [gpt-4o]\n"
        f"backends: {{cloud: {{kind: openai, base_url: '{cloud.base_url}'}}}}\n"
        f"domains: {{all: {{plan: [cloud]}}}}\ndefaults: {{tools: all, chat: all}}\n"
        f"record: {{directory: record, sync_s: 0.1, segment_s: 0.5,"
        f" archive: {{url: '{s3.url}', options: {{{options}}}}}}}\n"
    )
    command = [sys.executable, "-m", "proxy", "record", "compact", "--config", routes]
    compact = [*command, "--every", "0.5"]

    async with served(routes, "--log-level", "error") as server:
        shipping = await asyncio.create_subprocess_exec(
            *compact, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        await shipping.stdout.readline()
        there = await milliseconds(server.base_url)
        s3.stop()
        away = await milliseconds(server.base_url)
        complaint = await shipping.stderr.readline()
        s3.start()
        back = await milliseconds(server.base_url)
        shipping.terminate()
        await shipping.wait()
        await server.stop()
    code, out, _ = await run(*command)

    with capsys.disabled():
        print(f"\n{len(away)} requests in {SECONDS:g} s without the bucket: p50, p99 in ms")
        for name, took in (("there", there), ("away", away), ("back", back)):
            print(f"{name:6} {statistics.median(took):6.2f} {p99(took):6.2f}")
    assert complaint.startswith(b"headrace: ")
    assert (code, "0 segments still being written" in out) == (0, True)
    assert list((tmp_path / "record").glob("*.segment")) == []
    shipped = [one.request_id for one in Shelf(tmp_path / "elsewhere", s3.archive).exchanges()]
    assert len(shipped) == len(set(shipped)) == len(there) + len(away) + len(back)
