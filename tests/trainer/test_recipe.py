"""Recipes: what ships is sound, and what is misspelt is named with its place."""

from __future__ import annotations

from typing import get_args

import pytest

from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import template
from trainer import recipe
from trainer.errors import RecipeError
from trainer.recipe import RECIPES, FormatName

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))
LEAST = """
domain: api
format: structured
template: structured
sources: [{kind: bfcl, categories: [live_simple]}]
"""


def written(directory, text: str, name: str = "mine.yaml"):
    path = directory / name
    path.write_text(text)
    return path


def test_what_ships():
    presets = ["article", "distil", "docs", "pitch", "pitch-cpu", "recommended"]
    assert sorted(SHIPPED) == sorted(["api", "bookings", *presets])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_names_what_exists(name):
    shipped = recipe.read(RECIPES / f"{name}.yaml")

    assert shipped.format in FORMATS
    assert FORMATS[shipped.format].end in template(shipped.template)


def test_the_shipped_recipes_share_no_row():
    api = recipe.read(RECIPES / "api.yaml")
    bookings = recipe.read(RECIPES / "bookings.yaml")

    assert api.sources[0].without == bookings.sources[0].tools


def test_what_a_recipe_leaves_out_has_a_default(tmp_path):
    read = recipe.read(written(tmp_path, LEAST))

    assert (read.base_model, read.lora.rank, read.seed) == ("smollm2-135m-instruct", 16, 0)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("domian: api", r"unknown field `domian`"),
        ("lora: {rnak: 8}", r"unknown field `rnak` - at `\$\.lora`"),
        ("split: {unseen: 0.1}", r"unknown field `unseen` - at `\$\.split`"),
        ("lora: {rank: 12}", r"at `\$\.lora\.rank`|12"),
        ("seed: soon", r"at `\$\.seed`"),
        ("format: xml", r"xml"),
        ("sources: []", r"at `\$\.sources`"),
        ("sources: [{kind: rumour}]", r"rumour.*at `\$\.sources\[0\]\.kind`"),
        ("sources: [{categories: []}]", r"`kind` - at `\$\.sources\[0\]`"),
        ("sources: [{kind: bfcl, category: x}]", r"unknown field `category`"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_file_and_path(tmp_path, line, told):
    path = written(tmp_path, f"{LEAST}{line}\n")

    with pytest.raises(RecipeError, match=rf"mine\.yaml: .*({told})"):
        recipe.read(path)


@pytest.mark.parametrize("name", ["domain", "format", "template", "sources"])
def test_a_missing_key_is_named(tmp_path, name):
    kept = "\n".join(line for line in LEAST.splitlines() if not line.startswith(name))

    with pytest.raises(RecipeError, match=rf"mine\.yaml: .*missing required field `{name}`"):
        recipe.read(written(tmp_path, kept))


@pytest.mark.parametrize("text", ["", "[1, 2]", "domain: [", "\tdomain: api", "just text"])
def test_what_is_no_recipe_is_told_with_the_file(tmp_path, text):
    with pytest.raises(RecipeError, match=r"mine\.yaml: "):
        recipe.read(written(tmp_path, text))


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RecipeError, match=r"mine\.yaml: "):
        recipe.read(tmp_path / "mine.yaml")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file"):
        recipe.read(tmp_path / "none.yaml")


def test_a_directory_is_told(tmp_path):
    with pytest.raises(RecipeError, match="Is a directory"):
        recipe.read(tmp_path)


def test_every_format_can_be_named():
    assert set(get_args(FormatName)) == set(FORMATS)


def test_the_pitchs_run_is_the_pitchs():
    pitch = recipe.read(RECIPES / "pitch.yaml")

    lora, training = pitch.lora, pitch.training
    assert (lora.rank, lora.alpha, lora.dropout, len(lora.targets)) == (32, 64, 0.1, 7)
    assert (training.precision, training.optimizer, training.schedule) == (
        "nf4",
        "adamw_8bit",
        "linear",
    )
    assert (training.micro_rows, training.batch_rows, training.epochs) == (2, 8, 3)
    assert (training.warmup_steps, training.weight_decay, training.max_tokens) == (10, 0.01, 2048)
    assert (pitch.decoding.max_new_tokens, pitch.decoding.temperature) == (256, 0.0)


def test_the_articles_run_is_the_articles():
    article = recipe.read(RECIPES / "article.yaml")

    assert (article.lora.rank, article.lora.alpha, article.lora.dropout) == (16, 16, 0.05)
    assert article.lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (article.training.batch_rows, article.training.max_steps) == (16, 1000)
    assert article.training.warmup_steps == 100
    decoding = article.decoding
    assert (decoding.temperature, decoding.top_p, decoding.repetition_penalty) == (0.3, 0.9, 1.1)
