"""The ladder where memory is short for real: the kernel refuses, and the run goes on smaller."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the train extra")

import torch

from tests.trainer.bases import tiny
from tests.trainer.engines.test_loop import told
from trainer.engines.checkpoint import CHECKPOINT


def limited(tmp_path: Path, mib: int) -> subprocess.CompletedProcess[str]:
    """A run of two steps that may take so many MiB besides what is there before."""
    base, run = tiny(tmp_path / "base"), tmp_path / "run"
    run.mkdir()
    module = "tests.trainer.engines.memory_limited"
    return subprocess.run(
        [sys.executable, "-m", module, str(base.directory), str(run), str(mib)],
        capture_output=True,
        text=True,
        check=False,
        # Each arena of glibc's would take 64 MB of the limit for itself.
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
    )


def test_a_step_that_the_kernel_refuses_is_taken_in_smaller_parts(tmp_path):
    ended = limited(tmp_path, 1200)

    assert ended.returncode == 0, ended.stderr[-2000:]
    state = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    assert 1 <= state["micro_rows"] <= 4
    assert "memory_ran_out" in ended.stdout
    assert len(told(tmp_path / "run")) == 2


def test_where_not_even_one_row_fits_it_is_said_what_to_change(tmp_path):
    ended = limited(tmp_path, 100)

    assert ended.returncode == 1
    assert "memory is too small for a single example (1 rows" in ended.stderr
