"""The parts of words.yaml."""

from __future__ import annotations

from pathlib import Path

import yaml

_WRITTEN: dict[str, str] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text())


def parts(name: str) -> list[str]:
    """All parts with this name."""
    return _WRITTEN[name].split(", ")
