"""Formats that training rows are exchanged in: one file a format, each reads and writes."""

from __future__ import annotations

from trainer.formats import alpaca, headrace, hermes, openai, sharegpt, xlam
from trainer.formats.base import Format

FORMATS: dict[str, Format] = {
    "openai": Format(openai.read, openai.write),
    "alpaca": Format(alpaca.read, alpaca.write),
    "sharegpt": Format(sharegpt.read, sharegpt.write),
    "xlam": Format(xlam.read, xlam.write),
    "hermes": Format(hermes.read, hermes.write),
    "headrace": Format(headrace.read, headrace.write),
}
"""Name → format."""
