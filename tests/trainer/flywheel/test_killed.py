"""A trainer that is killed (SIGKILL) in the middle of every step, and at its end: when it is run
again, it makes the very same adapter.

A tiny base here; SmolLM2 with HEADRACE_FLYWHEEL set (`make test-flywheel`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.protocol import adapter, champions
from tests.trainer.flywheel import settings_files
from tests.trainer.flywheel.killing import DONE, MIDDLE, WRITTEN
from trainer.flywheel.state import STEPS

ASKED = {"most": 3, "base": False}
WHOLE = "HEADRACE_FLYWHEEL" in os.environ
EVERY = [f"{step}:{moment}" for step in STEPS for moment in (MIDDLE, DONE, WRITTEN)]
HALF = [f"{step}:{MIDDLE}" for step in STEPS] + [f"{step}:{DONE}" for step in ("train", "sealed")]
MOMENTS = sorted(EVERY if WHOLE else HALF, key=EVERY.index)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, record: Path, base: Path) -> Any:
    """What became of two runs on the same record, of which one was killed again and again."""
    directory = tmp_path_factory.mktemp("killed")
    model = "smollm2-135m-instruct" if WHOLE else base
    rate = {"learning_rate": 5e-4} if WHOLE else {}
    paths = [
        settings_files.write(directory / name, record, model, training=rate, evaluation=ASKED)
        for name in ("killed", "unharmed")
    ]
    command = [sys.executable, "-m", "tests.trainer.flywheel.killing", *map(str, paths), *MOMENTS]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = msgspec.json.decode(done.stdout.splitlines()[-1])
    return told | {"directory": directory}


def test_it_was_killed_in_every_step(runs):
    assert runs["killed"] == MOMENTS


def test_the_adapter_is_the_one_of_a_run_that_nobody_killed(runs):
    ours, theirs = (
        adapter.read(runs["directory"] / name / "adapters" / "all-v1").manifest
        for name in ("killed", "unharmed")
    )

    assert ours.weights_sha256 == theirs.weights_sha256
    own = {"created_at": "", "run": "", "recipe": theirs.recipe}
    assert msgspec.structs.replace(ours, **own) == msgspec.structs.replace(theirs, **own)


def test_one_run_made_one_adapter_which_serves(runs):
    directory = runs["directory"] / "killed"

    assert champions.read(directory / "adapters").serving == {"all": "all-v1"}
    assert [path.name for path in (directory / "adapters").glob("all-*")] == ["all-v1"]
    assert len(list((directory / "runs" / "all").glob("*-all-v1"))) == 1


def test_the_sealed_rows_were_opened_once(runs):
    (openings,) = (runs["directory"] / "killed" / "runs" / "all").glob("*/dataset/openings.jsonl")
    assert len(openings.read_text().splitlines()) == 1


def test_the_manifest_tells_of_every_try(runs):
    unharmed, killed = runs["manifests"]
    assert [step["tries"] for step in unharmed["steps"]] == [1] * len(STEPS)
    assert all(step["tries"] >= 2 for step in killed["steps"])
    assert killed["outcome"] == unharmed["outcome"] == "promoted"
