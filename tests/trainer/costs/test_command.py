"""`headrace-trainer costs`: the same in a terminal, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the train extra")

from trainer.__main__ import main


def test_text_json_and_page_say_the_same(tmp_path: Path, capsys):
    twin, html = tmp_path / "costs.json", tmp_path / "costs.html"

    assert main(["costs", "--json", str(twin), "--html", str(html)]) == 0

    found = json.loads(twin.read_text())
    sentence = found["reckoning"]["sentence"]
    assert sentence in " ".join(capsys.readouterr().out.split("\n"))
    assert sentence in html.read_text()
    assert found["reckoning"]["cloud"] == pytest.approx(4350)
    assert [one["claimed"] for one in found["claims"]] == [83, 15_000, 60_000, 210, 100]


def test_a_case_of_ones_own_is_reckoned(tmp_path: Path, capsys):
    case = tmp_path / "case.yaml"
    case.write_text("calls: 1000\nmodel: gpt-4o-mini\n")

    assert main(["costs", "--case", str(case)]) == 0

    assert "The cloud is cheaper" in capsys.readouterr().out


def test_a_record_that_is_not_there_is_told(tmp_path: Path, capsys):
    assert main(["costs", "--record", str(tmp_path / "none")]) == 1

    assert "there is no such record" in capsys.readouterr().err
