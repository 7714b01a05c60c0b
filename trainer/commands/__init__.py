"""What can be typed after `headrace-trainer`: one file a command, each with its own `add`."""

from __future__ import annotations

from trainer.commands import dataset, evaluate, export, preflight, promote, recipe, train

COMMANDS = (recipe, dataset, preflight, train, evaluate, promote, export)
"""In the order of their use, as the help shows them."""
