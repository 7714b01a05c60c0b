"""Workflows by the command: an endpoint that is right, and one that only talks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="needs the train extra")

from tests.scripted import ScriptedCloud, answer, completion
from trainer.__main__ import main

MULTIPLY = ("multiply", '{"a": 12.5, "b": 8}')
STORE = ("store", '{"value": 100}')


def said(call: tuple[str, str] | None) -> bytes:
    if call is None:
        return answer(completion({"role": "assistant", "content": "Done."}))
    function = {"name": call[0], "arguments": call[1]}
    called = {"id": "call-1", "type": "function", "function": function}
    return answer(
        completion({"role": "assistant", "content": None, "tool_calls": [called]}, "tool_calls")
    )


async def asked(cloud: ScriptedCloud, out: Path, *further: str) -> int:
    subject = f"clever,url={cloud.base_url},model=m"
    given = ("--subject", subject, "--task", "calculator-store", "--out", str(out))
    return await asyncio.to_thread(main, ["workflows", *given, *further])


async def test_tasks_are_run_to_their_end_and_the_figures_told(cloud, tmp_path):
    right = [MULTIPLY, STORE, None]
    for call in [*right * 3, MULTIPLY, *right]:
        cloud.plays(said(call))

    assert await asked(cloud, tmp_path) == 0

    written = json.loads((tmp_path / "clever-workflows.json").read_text())
    assert [run["steps"] for run in written["runs"]] == [2, 2, 2, 3]
    figures = written["figures"]
    assert [figures[name] for name in ("pass_1", "pass_3", "step_ratio")] == [1.0, 1.0, 1.0]
    assert [figures["right"]["hits"], figures["recovery"]["hits"]] == [3, 1]
    body = cloud.requests[-1].json
    assert [m["role"] for m in body["messages"]][:3] == ["user", "assistant", "tool"]


async def test_a_model_that_only_talks_is_right_nowhere(cloud, tmp_path):
    cloud.plays(said(None))

    assert await asked(cloud, tmp_path, "--times", "1") == 0

    written = json.loads((tmp_path / "clever-workflows.json").read_text())
    assert {run["end"] for run in written["runs"]} == {"no_call"}
    assert (written["figures"]["pass_3"], written["figures"]["step_ratio"]) == (None, None)


async def test_an_endpoint_that_is_not_there_is_told(tmp_path, capsys):
    nowhere = "none,url=http://127.0.0.1:9/v1"
    given = ["workflows", "--subject", nowhere, "--task", "files-copy", "--times", "1"]

    assert await asyncio.to_thread(main, given) == 1

    assert "answered nothing; is it running?" in capsys.readouterr().err
