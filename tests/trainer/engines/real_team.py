"""Two processes that train one adapter: the same losses and weights as of one alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

pytest.importorskip("peft", reason="needs the train extra")

import torch
from safetensors.torch import load_file

from tests.trainer.bases import tiny
from tests.trainer.examples import corpus
from trainer import dataset, pipeline, recipe
from trainer.__main__ import main
from trainer.dataset import Dataset
from trainer.engines.journal import METRICS
from trainer.engines.peft import ENGINE
from trainer.sources.base import Skips


def told(run: Path) -> list[dict[str, float]]:
    return [msgspec.json.decode(line) for line in (run / METRICS).read_bytes().splitlines()]


def test_two_processes_learn_what_one_does(tmp_path):
    base = tiny(tmp_path / "base")
    rows = corpus(1, 30)
    written = Dataset(train=rows[:24], validation=rows[24:], seen=[], unseen=[], dropped={})
    dataset.write(written, tmp_path / "dataset")
    settings = {
        "domain": "mine",
        "base_model": str(base.gguf),
        "format": "structured",
        "template": "structured",
        "sources": [{"kind": "bfcl", "categories": []}],
        "lora": {"rank": 8},
        "training": {
            "learning_rate": 0.02,
            "precision": "fp32",
            "batch_rows": 7,
            "micro_rows": 2,
            "max_steps": 3,
            "validate_every": 2,
        },
        "decoding": {"max_new_tokens": 4},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    read, alone = recipe.read(tmp_path / "mine.yaml"), tmp_path / "alone"
    alone.mkdir()
    one = pipeline.train(read, ENGINE, alone, tmp_path / "one", Skips(), tmp_path / "dataset")

    places = ("--out", tmp_path / "runs", "--adapters", tmp_path / "two")
    given = ("--recipe", tmp_path / "mine.yaml", "--dataset", tmp_path / "dataset", *places)
    code = main(["train", *map(str, given), "--on", "local", "--cards", "2"])

    assert code == 0, (tmp_path / "runs" / "mine" / "log.txt").read_text()[-3000:]
    ours, theirs = told(tmp_path / "runs" / "mine"), told(alone)
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs])
    weights = load_file(tmp_path / "two" / "mine-v1" / "adapter_model.safetensors")
    for name, weight in load_file(one / "adapter_model.safetensors").items():
        assert torch.allclose(weights[name], weight, atol=1e-3), name
