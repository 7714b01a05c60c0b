"""Filters that look at where an answer comes from: who gave it, and what became of it."""

from __future__ import annotations

from typing import ClassVar

from trainer.curate.filter import Drop
from trainer.recipe import Recipe
from trainer.recipe.curation import (
    AgreementSettings,
    FeedbackSettings,
    OutcomeSettings,
    StudentSettings,
    ToolResultSettings,
)
from trainer.rows import Label, Row


class Outcome:
    """Steps of workflows that ended in an error teach the error."""

    version: ClassVar[int] = 1

    def __init__(self, settings: OutcomeSettings, recipe: Recipe) -> None:
        pass

    def __call__(self, row: Row) -> Row | Drop:
        failed = row.cep is not None and row.cep.outcome == "error"
        return Drop("workflow_failed") if failed else row


class ToolResult:
    """What the tool said of the call."""

    version: ClassVar[int] = 1

    def __init__(self, settings: ToolResultSettings, recipe: Recipe) -> None:
        self._must_be_known = settings.must_be_known

    def __call__(self, row: Row) -> Row | Drop:
        if row.label.tool_outcome == "error":
            return Drop("tool_said_error")
        if row.calls and self._must_be_known and row.label.tool_outcome is None:
            return Drop("tool_result_unknown")
        return row


class Student:
    """Our own adapters' answers, unless the tool, and somebody else, agreed with them."""

    version: ClassVar[int] = 1

    def __init__(self, settings: StudentSettings, recipe: Recipe) -> None:
        self._agreement = settings.agreement

    def __call__(self, row: Row) -> Row | Drop:
        if not row.label.student or self._is_verified(row.label):
            return row
        return Drop("our_own_answer", row.label.student)

    def _is_verified(self, label: Label) -> bool:
        people = label.kind == "human" or (label.feedback or 0.0) >= 1.0
        committee = (label.agreement or 0.0) >= self._agreement
        return label.tool_outcome == "ok" and (people or committee)


class Feedback:
    """What people said of the answer."""

    version: ClassVar[int] = 1

    def __init__(self, settings: FeedbackSettings, recipe: Recipe) -> None:
        self._least = settings.least

    def __call__(self, row: Row) -> Row | Drop:
        # A demonstration stands in the disliked answer's place: the dislike was not for it.
        said = None if row.label.kind == "human" else row.label.feedback
        return Drop("disliked") if said is not None and said < self._least else row


class Agreement:
    """What a committee of teachers said."""

    version: ClassVar[int] = 1

    def __init__(self, settings: AgreementSettings, recipe: Recipe) -> None:
        self._least = settings.least

    def __call__(self, row: Row) -> Row | Drop:
        agreed = row.label.agreement
        return Drop("teachers_disagree") if agreed is not None and agreed < self._least else row
