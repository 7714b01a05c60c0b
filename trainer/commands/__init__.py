"""What can be typed after `headrace-trainer`: one file a command, each with its own `add`."""

from __future__ import annotations

from trainer.commands import (
    dataset,
    evaluate,
    gate,
    judge,
    label,
    promote,
    report,
    router,
    rows,
    train,
)

COMMANDS = (rows, label, dataset, train, evaluate, judge, gate, report, promote, router)
"""In the order of their use, as the help shows them."""
