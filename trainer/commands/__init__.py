"""What can be typed after `headrace-trainer`: one file a command, each with its own `add`."""

from __future__ import annotations

from trainer.commands import (
    choose,
    chronicle,
    convert,
    costs,
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
    run,
    trace,
    train,
    watch,
    workflows,
)

COMMANDS = (
    *(rows, label, recipe, dataset, preflight, train, prefer),
    *(evaluate, workflows, judge, choose, gate, report, promote, registry, trace, convert, router),
    *(run, watch, chronicle, costs),
)
"""In the order of their use, as the help shows them."""
