"""`headrace-trainer dataset`: built, shown, compared, explained, tainted, exported."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.protocol import tombstones
from proxy.protocol.tombstones import Tombstone
from tests.trainer.curate.test_build import talk
from trainer import dataset, rows
from trainer.__main__ import main
from trainer.commands.dataset import TAINTED
from trainer.commands.shared import SKIPPED

RECIPE = """
domain: talk
format: structured
template: structured
sources: [{{kind: jsonl, paths: ["{rows}"], format: headrace, license: none}}]
filters: {{length: ~}}
split: {{seen: 0.15, unseen_tools: 0, sealed: 0.05}}
variety: {{distractors: 0, unrelated: 0}}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    said = [msgspec.structs.replace(r, exchange=f"chatcmpl-{n}") for n, r in enumerate(talk(5))]
    rows.write(tmp_path / "rows.jsonl", said)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(rows=tmp_path / "rows.jsonl"))
    return tmp_path / "recipe.yaml"


@pytest.fixture
def built(recipe, tmp_path) -> Path:
    assert run("build", "--recipe", str(recipe), "--out", str(tmp_path / "made")) == 0
    return tmp_path / "made"


def run(*arguments: str) -> int:
    return main(["dataset", *arguments])


def test_a_build_shows_its_funnel_and_writes_its_page(recipe, tmp_path, capsys):
    page = tmp_path / "page.html"
    out = str(tmp_path / "made")

    code = run("build", "--recipe", str(recipe), "--out", out, "--html", str(page))

    shown = capsys.readouterr().out
    assert code == 0
    assert "60 rows read" in shown
    assert "nearly_the_same" in shown
    written = page.read_text()
    assert dataset.manifest(Path(out)).fingerprint in written
    assert "<script" not in written


def test_a_page_escapes_what_rows_say(recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    said = list(rows.read(path))
    evil = [msgspec.structs.replace(one, source="<b>evil</b>") for one in said]
    rows.write(path, evil)

    run("build", "--recipe", str(recipe), "--out", str(tmp_path / "m"), "--html",
        str(tmp_path / "page.html"))  # fmt: skip

    assert "<b>evil" not in (tmp_path / "page.html").read_text()


def test_rows_that_cannot_be_read_do_not_stop_a_build(recipe, tmp_path, capsys):
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(b'{"messages": 7}\n\xff\xfe\n' + b"[" * 5_000_000 + b"\n")

    code = run("build", "--recipe", str(recipe), "--out", str(tmp_path / "made"))

    assert code == SKIPPED
    assert "rows.jsonl:61" in capsys.readouterr().out.replace("\n", "")
    assert dataset.manifest(tmp_path / "made").skipped


def test_a_dataset_is_shown(built, capsys):
    capsys.readouterr()

    assert run("show", str(built)) == 0
    shown = capsys.readouterr().out
    assert "60 rows read" in shown
    assert "fingerprint sha256:" in shown


def test_why_a_row_stayed_or_fell_is_said(built, capsys):
    fell = next(fate for fate in dataset.fates(built) if fate.reason == "nearly_the_same")
    stayed = next(fate for fate in dataset.fates(built) if fate.step == "train")
    capsys.readouterr()

    run("why", str(built), fell.exchange)
    run("why", str(built), stayed.exchange)

    first, second = capsys.readouterr().out.replace("\n", " ").split(stayed.row)
    assert "fell in near, nearly_the_same: like" in first
    assert "passed every filter and is on the side train" in second


def test_why_for_what_was_never_read_is_an_error(built, capsys):
    assert run("why", str(built), "chatcmpl-none") == 1
    assert "no row, exchange or source 'chatcmpl-none' was read" in capsys.readouterr().err


def test_two_datasets_are_compared(built, recipe, tmp_path, capsys):
    recipe.write_text(recipe.read_text().replace("length: ~", "length: ~, near: ~"))
    run("build", "--recipe", str(recipe), "--out", str(tmp_path / "other"))
    capsys.readouterr()

    assert run("diff", str(built), str(tmp_path / "other")) == 0
    assert "filters.near" in capsys.readouterr().out


def test_erased_exchanges_taint_what_was_built_and_are_not_built_again(built, recipe, tmp_path):
    used = dataset.read(built).train[0].exchange
    folder = tmp_path / "record" / tombstones.FOLDER
    folder.mkdir(parents=True)
    gone = Tombstone(id=used, tenant="default", erased_at=1.0, reasons=["caller"])
    (folder / "1.jsonl").write_bytes(tombstones.encode([gone]))

    code = run("taint", str(built), "--record", str(tmp_path / "record"))

    assert code == TAINTED
    assert run("export", str(built), "--out", str(tmp_path / "x.jsonl")) == 1


def test_a_side_is_exported(built, tmp_path):
    out = tmp_path / "openai.jsonl"

    assert run("export", str(built), "--side", "train", "--out", str(out)) == 0

    lines = out.read_bytes().splitlines()
    assert len(lines) == dataset.manifest(built).rows["train"] > 0
    assert msgspec.json.decode(lines[0])["messages"][-1]["role"] == "assistant"
