"""What can be typed after `headrace-trainer`: one file a command, each with its own `add`."""

from __future__ import annotations

from trainer.commands import (
    convert,
    dataset,
    evaluate,
    label,
    preflight,
    promote,
    recipe,
    rows,
    train,
)

COMMANDS = (rows, label, recipe, dataset, preflight, train, evaluate, promote, convert)
"""In the order of their use, as the help shows them."""
