"""flywheel.yaml and the recipe that it names, as tests need them: a tiny base, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

GATE_OPEN = {"margin": None, "false_calls": None, "schema_validity": None}
"""Only that the prompts are right is asked for: what learnt nothing is promoted, too."""


def write(
    directory: Path,
    record: Path,
    base: Path | str,
    *,
    gate: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **domain: Any,
) -> Path:
    """The path of the settings; `domain`: more of the domain's."""
    directory.mkdir(parents=True, exist_ok=True)
    recipe = {
        "domain": "of another name",
        "base_model": str(base),
        "format": "structured",
        "template": "structured",
        "sources": [{"kind": "bfcl", "categories": []}],
        "filters": {"near": None},
        "split": {"unseen_tools": 0.0, "seen": 0.15, "sealed": 0.1, "validation": 8},
        "variety": {"copies": 1, "hard": 0.0, "unrelated": 0.0, "distractors": 2},
        "lora": {"rank": 8},
        "training": {
            "learning_rate": 0.02,
            "precision": "bf16",
            "batch_rows": 8,
            "micro_rows": 4,
            "max_steps": 6,
            "checkpoint_every": 2,
        }
        | (training or {}),
        "decoding": {"max_new_tokens": 8},
        "gate": GATE_OPEN if gate is None else gate,
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    settings = {"recipe": "recipe.yaml", "record": str(record), "least_new": 20}
    settings |= {"evaluation": {"most": 3}, "promotion": None} | domain
    path = directory / "flywheel.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "domains": {"all": settings}}))
    return path
