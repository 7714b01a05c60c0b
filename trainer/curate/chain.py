"""The filters that look at one row at a time, in their order, and what becomes of a row there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from trainer.curate import code, drift, length, privacy, provenance, schema, texts
from trainer.curate.contamination import Evaluations, Known
from trainer.curate.filter import Drop, Filter
from trainer.curate.sketch import Sketch, sketches
from trainer.errors import TrainerError
from trainer.recipe import Recipe
from trainer.rows import Row

FILTERS: dict[str, Callable[[Any, Recipe], Filter]] = {
    "drift": drift.Drift,
    "outcome": provenance.Outcome,
    "tool_result": provenance.ToolResult,
    "student": provenance.Student,
    "feedback": provenance.Feedback,
    "agreement": provenance.Agreement,
    "instruction": texts.Instruction,
    "language": texts.Language,
    "privacy": privacy.Privacy,
    "schema": schema.Schema,
    "complete": texts.Complete,
    "code_block": code.CodeBlock,
    "code_syntax": code.CodeSyntax,
    "code_imports": code.CodeImports,
    "code_deprecated": code.CodeDeprecated,
    "code_runs": code.CodeRuns,
    "length": length.Length,
}
"""Name in the recipe → the filter's class, in the order in which a row passes them."""


class Plan(msgspec.Struct, frozen=True):
    """All that a worker needs to know."""

    recipe: Recipe
    known: Known | None
    """What evaluations ask and answer; None where the recipe does not compare with them."""


class Judged(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What became of a row."""

    row: bytes = b""
    """The row as it now stands, in JSON; empty where it fell."""
    sketch: Sketch | None = None
    """None where it fell."""
    changed: str = ""
    """The first filter that changed it."""
    step: str = ""
    """Where it fell; empty where it stands."""
    reason: str = ""
    detail: str = ""


class _Named(NamedTuple):
    name: str
    filter: Filter


def filters(recipe: Recipe) -> list[_Named]:
    """The recipe's filters of single rows."""
    chosen = ((name, getattr(recipe.filters, name), make) for name, make in FILTERS.items())
    return [_Named(name, make(given, recipe)) for name, given, make in chosen if given is not None]


class Judge:
    """Judges rows by a plan; the same row always fares the same."""

    def __init__(self, plan: Plan) -> None:
        self._filters = filters(plan.recipe)
        self._near = plan.recipe.filters.near
        if plan.known is not None and plan.recipe.filters.decontaminate is not None:
            evaluations = Evaluations(plan.recipe.filters.decontaminate, plan.known)
            self._filters.append(_Named("decontaminate", evaluations))

    def __call__(self, rows: Sequence[Row]) -> list[Judged]:
        """In the order of `rows`."""
        stands = [self._through(row) for row in rows]
        left = [one.row for one in stands if isinstance(one, _Stands)]
        made = iter(sketches(left, self._near))
        return [
            Judged(msgspec.json.encode(one.row), next(made), one.changed)
            if isinstance(one, _Stands)
            else one
            for one in stands
        ]

    def _through(self, row: Row) -> _Stands | Judged:
        changed = ""
        for name, judge in self._filters:
            became = _became(row, judge)
            if isinstance(became, Drop):
                return Judged(step=name, reason=became.reason, detail=became.detail[:300])
            changed = changed or (name if became is not row else "")
            row = became
        return _Stands(row, changed)


class _Stands(NamedTuple):
    row: Row
    changed: str


def _became(row: Row, judge: Filter) -> Row | Drop:
    try:
        return judge(row)
    except TrainerError:
        raise
    except Exception as error:
        # One odd row must not end a run of hours: it is dropped, and counted as what it is.
        return Drop("filter_failed", type(error).__name__)
