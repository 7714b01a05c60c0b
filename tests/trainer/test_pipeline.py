"""From rows to a bundle, with a tiny base: what is written is what the proxy takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import yaml

pytest.importorskip("peft", reason="needs the train extra")

from proxy.protocol import adapter
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from proxy.protocol.parity import ParityError, prove, rendering
from tests.trainer.bases import tiny
from tests.trainer.examples import corpus, row, weather
from trainer import dataset, pipeline, recipe
from trainer.dataset import Dataset
from trainer.engines import checkpoint
from trainer.engines.journal import METRICS
from trainer.engines.peft import ENGINE
from trainer.errors import PreflightError
from trainer.recipe import Recipe
from trainer.sources.base import Skips

TRAINING = {
    "learning_rate": 0.02,
    "precision": "bf16",
    "batch_rows": 8,
    "micro_rows": 4,
    "max_steps": 6,
    "validate_every": 3,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of some 40 rows."""
    rows = corpus(1, 40)
    named = [msgspec.structs.replace(one, format="cep") for one in rows[30:34]]
    written = Dataset(
        train=[*rows[:30], *named], validation=rows[34:], seen=[], unseen=[], dropped={}
    )
    directory = tmp_path_factory.mktemp("dataset")
    dataset.write(written, directory)
    return directory


def recipe_file(base: BaseModel, directory: Path, **training: object) -> Path:
    path = directory / "mine.yaml"
    settings = {
        "domain": "mine",
        "base_model": str(base.gguf),
        "format": "structured",
        "template": "structured",
        "formats": {"cep": "cep"},
        "sources": [{"kind": "bfcl", "categories": []}],
        "lora": {"rank": 8},
        "training": TRAINING | training,
        "decoding": {"max_new_tokens": 8},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def read(base: BaseModel, directory: Path, **training: object) -> Recipe:
    return recipe.read(recipe_file(base, directory, **training))


@pytest.fixture(scope="module")
def bundle(base, made, tmp_path_factory: pytest.TempPathFactory) -> adapter.Adapter:
    run = tmp_path_factory.mktemp("run")
    path = pipeline.train(
        read(base, run), ENGINE, run, tmp_path_factory.mktemp("out"), Skips(), made
    )
    return adapter.read(path)


def test_a_bundle_says_what_it_was_made_of(bundle, base, made):
    manifest = bundle.manifest

    assert (bundle.id, manifest.base_precision, manifest.seed) == ("mine-v1", "bf16", 0)
    assert (manifest.base_sha256, manifest.tokenizer_sha256) == (base.sha256, base.tokenizer_sha256)
    assert manifest.dataset_fingerprint == dataset.read(made).fingerprint
    assert {"torch", "peft", "transformers"} <= set(manifest.versions)
    assert msgspec.json.decode(manifest.recipe, type=Recipe).lora.rank == 8


def test_a_bundle_of_two_formats_has_both_templates(bundle):
    assert bundle.templates == {"structured": template("structured"), "cep": template("cep")}


def test_a_bundles_requests_become_the_ids_of_its_training(bundle, base):
    assert len(bundle.parity) == pipeline.PARITY_SAMPLES

    prove(bundle.parity, rendering(bundle.templates, base.encode))
    with pytest.raises(ParityError):
        prove(bundle.parity, rendering(bundle.templates | {"structured": "x"}, base.encode))


def test_a_canary_tells_the_adapter_from_its_base(bundle):
    assert bundle.canary.expected != bundle.canary.base


def test_a_finished_run_leaves_no_checkpoint_and_the_next_has_another_id(base, made, tmp_path):
    settings = read(base, tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    first = pipeline.train(settings, ENGINE, run, tmp_path / "out", Skips(), made)

    second = pipeline.train(settings, ENGINE, run, tmp_path / "out", Skips(), made)

    assert not (run / checkpoint.CHECKPOINT).exists()
    assert [first.name, second.name] == ["mine-v1", "mine-v2"]
    ours, again = adapter.read(first).manifest, adapter.read(second).manifest
    assert ours.weights_sha256 == again.weights_sha256


def test_a_dataset_that_fails_its_checks_costs_no_training(base, tmp_path):
    rows = [row(weather()), row(text="<|im_end|>")]
    broken = Dataset(train=rows, validation=rows, seen=[], unseen=[], dropped={})
    dataset.write(broken, tmp_path / "dataset")

    with pytest.raises(PreflightError, match="the last label ends the turn"):
        pipeline.train(
            read(base, tmp_path), ENGINE, tmp_path, tmp_path / "out", Skips(), tmp_path / "dataset"
        )

    assert not (tmp_path / METRICS).exists()


def test_a_process_that_is_told_to_stop_saves_says_so_and_exits_with_143(base, made, tmp_path):
    file = recipe_file(base, tmp_path, max_steps=2000, epochs=500, validate_every=0)
    run = tmp_path / "run"
    command = ["train", "--recipe", file, "--dataset", made, "--out", run, "--adapters", tmp_path]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )

    while process.poll() is None and not (
        (run / METRICS).exists() and (run / METRICS).read_bytes()
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)

    assert process.returncode == 143
    assert "the same command goes on from there" in told.splitlines()[-1]
    assert (run / checkpoint.CHECKPOINT).exists()
