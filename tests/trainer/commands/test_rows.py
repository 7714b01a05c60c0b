"""`import` and `export`: rows of sources to a file, a file to what others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from tests.trainer.examples import row, weather
from trainer.__main__ import main
from trainer.formats import FORMATS
from trainer.rows import read, write

ALPACA = {"instruction": "Add.", "input": "1 1", "output": "2"}
RECIPE = """
domain: api
format: structured
template: structured
sources: [{{kind: jsonl, format: alpaca, license: CC0-1.0, paths: ['{path}']}}]
"""


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([ALPACA, {"instruction": "half"}]))
    return path


def test_files_of_a_format_are_imported_and_what_was_skipped_is_told(alpaca, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"

    code = main(
        ["import", str(alpaca), "--format", "alpaca", "--license", "CC0-1.0", "--out", str(out)]
    )

    assert code == 3
    assert [one.text for one in read(out)] == ["2"]
    told = " ".join(capsys.readouterr().out.split())
    assert "1 rows in" in told
    assert f"{alpaca}[1]" in told.replace(" ", "") or "alpaca.json[1]" in told


def test_a_recipes_sources_are_imported(alpaca, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE.format(path=alpaca))
    out = tmp_path / "rows.jsonl"

    main(["import", "--recipe", str(tmp_path / "mine.yaml"), "--out", str(out)])

    assert [one.license for one in read(out)] == ["CC0-1.0"]


def test_files_without_a_licence_are_not_imported(alpaca, tmp_path, capsys):
    assert main(["import", str(alpaca), "--out", str(tmp_path / "rows.jsonl")]) == 1
    assert "name a --recipe, or files and their --license" in capsys.readouterr().err


def test_rows_are_exported_and_what_a_format_cannot_say_is_told(tmp_path, capsys):
    write(tmp_path / "rows.jsonl", [row(weather()), row()])
    out = tmp_path / "out.jsonl"

    code = main(["export", str(tmp_path / "rows.jsonl"), "--format", "alpaca", "--out", str(out)])

    assert code == 3
    assert "has no place for tools, calls" in " ".join(capsys.readouterr().out.split())
    assert out.read_bytes() == b""


@pytest.mark.parametrize("format", ["openai", "sharegpt", "xlam", "hermes", "headrace"])
def test_an_exported_row_is_imported_as_it_was(tmp_path, format):
    write(tmp_path / "rows.jsonl", [row(weather())])
    out = tmp_path / "out.jsonl"

    assert (
        main(["export", str(tmp_path / "rows.jsonl"), "--format", format, "--out", str(out)]) == 0
    )

    assert FORMATS[format].read(out.read_bytes()).id == row(weather()).id
