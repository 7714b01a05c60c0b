"""Some inputs for every parser, always the same ones; `make fuzz MINUTES=30` tries others."""

from __future__ import annotations

import pytest

from tests.harden.fuzz import PARSERS, run

SLOW = {"prompt", "template", "routes.yaml"}


@pytest.mark.parametrize("name", PARSERS)
def test_parser_raises_only_what_it_says(name: str):
    run(name, 20 if name in SLOW else 60, number=1)
