"""Whether a row can be learnt; the cases are in test_preflight and in curate/test_filters."""

from __future__ import annotations

import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from tests.trainer.examples import row, weather
from trainer import learnable
from trainer.tokens import Encoder


@pytest.mark.parametrize("format", ["structured", "hermes", "cep"])
def test_first_check_that_a_row_fails_is_named(format: str):
    encoder = Encoder(BaseModel.find("smollm2-135m-instruct"), template(format), format)
    sound, torn = row(weather()), row(text="a<|endoftext|>b")

    assert learnable.fault(encoder, sound, encoder(sound)) is None
    assert learnable.fault(encoder, torn, encoder(torn)) == "the last label ends the turn"
