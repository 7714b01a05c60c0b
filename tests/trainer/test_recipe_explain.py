"""Every knob says its unit and where its value comes from."""

from __future__ import annotations

import pytest

from trainer import recipe
from trainer.__main__ import main
from trainer.recipe import RECIPES
from trainer.recipe.explain import explain

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_knob_of_training_is_explained(name):
    read = recipe.read(RECIPES / f"{name}.yaml")

    mute = [knob.path for knob in explain(read) if not knob.text]

    assert [path for path in mute if path.startswith(("lora.", "training.", "decoding."))] == []


def test_a_knob_tells_its_value_and_whether_the_recipe_chose_it():
    knobs = {knob.path: knob for knob in explain(recipe.read(RECIPES / "pitch.yaml"))}

    assert (knobs["lora.rank"].value, knobs["lora.rank"].default) == (32, False)
    assert (knobs["training.clip"].value, knobs["training.clip"].default) == (1.0, True)
    assert "LoRA Without Regret" in knobs["lora.rank"].text


def test_the_command_prints_each_knob_with_its_source(capsys):
    assert main(["recipe", "explain", "pitch"]) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "training.precision = nf4 (recipe)" in shown
    assert "Dettmers" in shown


def test_the_recipes_that_ship_are_listed(capsys):
    assert main(["recipe", "ls"]) == 0

    shown = capsys.readouterr().out
    assert [name for name in SHIPPED if name not in shown] == []
