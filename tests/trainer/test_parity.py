"""Prompts that are served beside those of the training."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from proxy.protocol import adapter
from proxy.protocol.formats.base import template
from proxy.protocol.openai import Message
from tests.trainer.examples import corpus, row
from trainer import parity
from trainer.gate_rules import Count
from trainer.tokens import Encoder

BUNDLE = adapter.read(Path(__file__).parents[2] / "adapters" / "api-v1")
ROWS = [
    *corpus(1, 40),
    row(question="Wetter in Zürich? 東京 🌧"),
    msgspec.structs.replace(
        row(),
        messages=[Message(role="system", content="Be terse."), Message(role="user", content="?")],
    ),
]


def test_prompts_of_rows_are_those_that_are_served():
    assert parity.parity(BUNDLE, ROWS) == Count(0, 42)


def test_another_template_in_training_is_found(monkeypatch):
    other = template("hermes")
    monkeypatch.setattr(
        parity, "Encoder", lambda base, frozen, format: Encoder(base, other, format)
    )

    assert parity.parity(BUNDLE, ROWS) == Count(42, 42)
