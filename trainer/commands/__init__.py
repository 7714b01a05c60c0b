"""What can be typed after `headrace-trainer`: one file a command, each with its own `add`."""

from __future__ import annotations

from trainer.commands import (
    convert,
    dataset,
    evaluate,
    gate,
    judge,
    label,
    prefer,
    preflight,
    promote,
    recipe,
    registry,
    report,
    router,
    rows,
    trace,
    train,
    workflows,
)

COMMANDS = (
    *(rows, label, recipe, dataset, preflight, train, prefer),
    *(evaluate, workflows, judge, gate, report, promote, registry, trace, convert, router),
)
"""In the order of their use, as the help shows them."""
