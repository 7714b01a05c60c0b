"""What was kept of every parser, and some new inputs; `make fuzz MINUTES=30` looks for others."""

from __future__ import annotations

import random

import pytest

from tests.harden import fuzz
from tests.harden.fuzz import kept, run, spliced
from tests.harden.parsers import PARSERS, Parser

SLOW = {"prompt", "template", "routes.yaml", "recipe"}


@pytest.mark.parametrize("name", PARSERS)
def test_parser_raises_only_what_it_says(name: str):
    run(name, 20 if name in SLOW else 60, number=1)


def test_what_is_kept_is_tried_first_and_an_input_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    monkeypatch.setitem(PARSERS, "numbers", Parser(int, (), [b"1"]))
    run("numbers", 0, number=1)

    assert fuzz.keep("numbers", [b"2", b"no", b"2"]) == 2

    assert sorted(kept("numbers")) == [b"2", b"no"]
    with pytest.raises(ValueError, match="invalid literal") as failed:
        run("numbers", 0, number=1)
    assert failed.value.__notes__ == ["the input: b'no'"]


def test_a_seed_makes_the_same_inputs_again():
    parser = PARSERS["request"]

    def made(number: int) -> list[bytes]:
        chance = random.Random(number)
        return [spliced(chance, parser, parser.seeds[0]) for _ in range(50)]

    assert made(1) == made(1) != made(2)
    assert len(set(made(1))) > 40
