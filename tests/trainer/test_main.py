"""`headrace-trainer`: what goes wrong is one line on stderr and exit 1, never a traceback."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from tests.trainer.answers import calls, none, report
from tests.trainer.examples import corpus, row, weather
from trainer import dataset, gate
from trainer import evaluate as evaluation
from trainer.__main__ import main
from trainer.dataset import Dataset
from trainer.recipe import RECIPES
from trainer.sources.bfcl import BfclSource

LEAST = """
domain: api
format: structured
template: structured
sources: [{kind: bfcl, categories: [live_simple]}]
"""
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))
BROKEN = {
    "no yaml": b"domain: [api",
    "two lines of it": b"domain: api\n\tformat: structured",
    "no mapping": b"[]",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "misspelt": LEAST.encode() + b"sede: 7",
}


def told(capsys, *arguments: str) -> str:
    """The one line on stderr of a command that fails."""
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("command", [("dataset", "build"), ("train",)])
def test_an_unknown_recipe_is_told_with_those_that_ship(capsys, tmp_path, command):
    line = told(capsys, *command, "--recipe", "apy", "--out", str(tmp_path / "run"))

    assert line == "headrace-trainer: no recipe 'apy'; shipped ones: " + ", ".join(SHIPPED)


@pytest.mark.parametrize("command", [("dataset", "build"), ("train",)])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_recipe_is_told_with_its_file(capsys, tmp_path, command, broken):
    path = tmp_path / "mine.yaml"
    path.write_bytes(BROKEN[broken])

    line = told(capsys, *command, "--recipe", str(path), "--out", str(tmp_path / "run"))

    assert line.startswith(f"headrace-trainer: {path}: ")


def test_a_failed_command_leaves_nothing_behind(capsys, tmp_path):
    told(capsys, "train", "--recipe", "apy", "--out", str(tmp_path / "run"))

    assert not (tmp_path / "run").exists()


def test_a_place_that_is_a_file_is_told(capsys, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")

    line = told(capsys, "train", "--recipe", "api", "--out", str(taken))

    assert line == f"headrace-trainer: {taken}: File exists"


def test_a_missing_package_of_rows_is_told_with_the_remedy(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)

    line = told(capsys, "dataset", "build", "--recipe", "api", "--out", str(tmp_path))

    assert line.endswith("run `make train-setup`")


def test_missing_libraries_of_the_training_are_told_with_the_remedy(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trainer.engines.peft", None)

    line = told(capsys, "train", "--recipe", "api", "--out", str(tmp_path))

    assert line.startswith("headrace-trainer: training with peft needs more")
    assert line.endswith("run `make train-setup`")


@pytest.mark.parametrize("line", ["template: nothing", "base_model: llama"])
def test_a_recipe_that_names_what_there_is_not_is_told(capsys, tmp_path, monkeypatch, line):
    pytest.importorskip("torch", reason="needs the train extra")
    monkeypatch.setattr(BfclSource, "rows", lambda self: iter([]))
    path = tmp_path / "mine.yaml"
    path.write_text(LEAST + line)
    where = ("--out", str(tmp_path / "run"), "--adapters", str(tmp_path / "adapters"))

    shown = told(capsys, "train", "--recipe", str(path), *where)

    assert line.split()[1] in shown


# ---------------------------------------------------------------- datasets


def test_where_there_is_no_dataset_the_remedy_is_told(capsys, tmp_path):
    line = told(capsys, "evaluate", "--dataset", str(tmp_path / "none"))

    assert "holds no dataset" in line
    assert line.endswith("run `headrace-trainer dataset build`")


def test_a_server_that_is_not_there_is_told(capsys, tmp_path):
    rows = [row(weather())]
    held_out = Dataset(train=rows, validation=[], seen=rows, unseen=rows, dropped={})
    dataset.write(held_out, tmp_path)

    line = told(
        capsys, "evaluate", "--dataset", str(tmp_path), "--base-url", "http://127.0.0.1:9/v1"
    )

    assert "http://127.0.0.1:9/v1" in line
    assert line.endswith("is the server running?")


@pytest.mark.skipif(
    find_spec("bfcl_eval") is None, reason="bfcl-eval is not installed; run `make train-setup`"
)
def test_a_dataset_is_written_and_told(capsys, tmp_path):
    code = main(["dataset", "build", "--recipe", "bookings", "--out", str(tmp_path)])

    shown = capsys.readouterr().out
    assert code == 0
    assert dataset.read(tmp_path).fingerprint in shown
    assert "schema_violation" in shown


def test_what_had_to_be_skipped_is_told_and_the_exit_code_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        BfclSource, "rows", lambda self: self._skips.add("a:7", "no_answer") or iter(corpus(1))
    )

    code = main(["dataset", "build", "--recipe", "bookings", "--out", str(tmp_path)])

    assert code == 3
    assert "a:7: no answer" in capsys.readouterr().out


# ---------------------------------------------------------------- the gate


def test_a_verdict_is_told_and_written(capsys, tmp_path):
    good = [*calls([True] * 400), *none([True] * 60)]
    for name in ("api-v2", "cloud"):
        evaluation.write(report(name, good), tmp_path / f"{name}.json")
    where = ("--candidate", f"{tmp_path}/api-v2.json", "--cloud", f"{tmp_path}/cloud.json")

    code = main(["gate", *where, "--out", str(tmp_path / "verdict.json")])

    shown = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "not decidable" in shown and "was not measured" in shown
    assert gate.read(tmp_path / "verdict.json").decision == "not decidable"


def test_reports_of_different_datasets_are_not_compared(capsys, tmp_path):
    evaluation.write(report("api-v2", calls([True])), tmp_path / "one.json")
    other = msgspec.structs.replace(report("api-v2", calls([True])), dataset="sha256:2")
    evaluation.write(other, tmp_path / "two.json")

    line = told(
        capsys, "gate", "--candidate", f"{tmp_path}/one.json", "--candidate", f"{tmp_path}/two.json"
    )

    assert line.endswith("the reports are of different datasets; evaluate all on one")


def test_the_sealed_side_is_not_opened_without_a_verdict(capsys, tmp_path):
    rows = [row(weather())]
    dataset.write(Dataset(train=rows, validation=[], seen=rows, unseen=rows, dropped={}), tmp_path)

    line = told(capsys, "evaluate", "--dataset", str(tmp_path), "--side", "sealed")

    assert "sealed" in line
