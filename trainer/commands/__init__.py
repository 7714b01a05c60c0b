"""What can be typed after `headrace-trainer`: one file a command, each with its own `add`."""

from __future__ import annotations

from trainer.commands import (
    chronicle,
    convert,
    costs,
    dataset,
    evaluate,
    gate,
    judge,
    label,
    preflight,
    promote,
    recipe,
    report,
    router,
    rows,
    run,
    train,
    watch,
)

COMMANDS = (
    *(rows, label, recipe, dataset, preflight, train),
    *(evaluate, judge, gate, report, promote, convert, router),
    *(run, watch, chronicle, costs),
)
"""In the order of their use, as the help shows them."""
