"""`headrace-trainer dataset`: built, shown, compared, explained, tainted, exported."""

from __future__ import annotations

import gzip
import random
import re
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


def said(question: str, **more: object) -> bytes:
    """A line of OpenAI's format."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]
    return msgspec.json.encode({"messages": messages} | more) + b"\n"


def cyclic(question: str) -> bytes:
    """Two definitions of a schema that each only name the other."""
    loop = {"b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/b"}}
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": loop}
    return said(
        question, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}]
    )


ASKED = b"".join(said(f"Is {n} up?") for n in range(3))
CUT = b"".join(said(random.Random(n).randbytes(40_000).hex()) for n in range(30))
BAD_INPUT = {
    "file_cut_short": ("rows.jsonl.gz", gzip.compress(CUT)[:-200_000]),
    "line_too_long": ("rows.jsonl", ASKED + said("x" * 50_000_000) + ASKED),
    "not_utf8": ("rows.jsonl", ASKED + said("Größe?").decode().encode("latin-1") + ASKED),
    "not_json": ("rows.jsonl", ASKED + said("Up?")[:-9] + b"\n" + ASKED),
    "missing_or_wrong_field": ("rows.jsonl", ASKED + b"[" * 5_000_000 + b"\n" + ASKED),
    "no_answer": ("rows.jsonl", ASKED + b'{"messages": [{"role": "user", "content": "a"}]}\n'),
    "schema_loops": ("rows.jsonl", ASKED + cyclic("Up?") + ASKED),
}
"""Reason → the name of a file and what is in it; where it breaks is its fourth line."""
BAD_RECIPE = """
domain: talk
format: structured
template: structured
sources:
  - {{kind: jsonl, paths: ["{bad}"], license: none}}
  - {{kind: jsonl, paths: ["{rows}"], format: headrace, license: none}}
filters: {{length: ~}}
split: {{seen: 0.15, unseen_tools: 0}}
variety: {{distractors: 0, unrelated: 0}}
"""


@pytest.mark.parametrize("command", ["dataset build", "import"])
@pytest.mark.parametrize("reason", BAD_INPUT)
def test_what_cannot_be_read_is_named_and_counted_and_the_rest_is_read(
    recipe, tmp_path, capsys, reason, command
):
    name, content = BAD_INPUT[reason]
    bad = tmp_path / "bad" / name
    bad.parent.mkdir()
    bad.write_bytes(content)
    recipe.write_text(BAD_RECIPE.format(bad=bad, rows=tmp_path / "rows.jsonl"))
    out = tmp_path / "made"

    code = main([*command.split(), "--recipe", str(recipe), "--out", str(out)])

    told = "".join(capsys.readouterr().out.split())
    place = re.search(rf"{re.escape(str(bad))}:(\d+)", told)
    assert code == SKIPPED
    assert f"skipped1{reason}" in told
    assert place is not None
    if reason != "file_cut_short":
        assert place[1] == "4"
    if command == "import":
        sources = [row.source for row in rows.read(out)]
    else:
        assert dataset.manifest(out).skipped == {reason: 1}
        sources = [fate.source for fate in dataset.fates(out)]
    assert f"jsonl:{bad}:1" in sources
    assert len([one for one in sources if one.startswith("talk:")]) == 60


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


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits(browser, built, tmp_path, width: int):
    file = tmp_path / "page.html"
    run("show", str(built), "--html", str(file))
    page = browser.new_page(viewport={"width": width, "height": 900})

    page.goto(file.as_uri())

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
