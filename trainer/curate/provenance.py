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
from trainer.rows import Row


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
        pass

    def __call__(self, row: Row) -> Row | Drop:
        return row if row.label.is_trusted else Drop("our_own_answer", row.label.by)


class Feedback:
    """What people said of the answer."""

    version: ClassVar[int] = 1

    def __init__(self, settings: FeedbackSettings, recipe: Recipe) -> None:
        pass

    def __call__(self, row: Row) -> Row | Drop:
        # A demonstration stands in the disliked answer's place: the dislike was not for it.
        disliked = row.label.approved is False and row.label.kind != "human"
        return Drop("disliked") if disliked else row


class Agreement:
    """What a committee of teachers said."""

    version: ClassVar[int] = 1

    def __init__(self, settings: AgreementSettings, recipe: Recipe) -> None:
        self._settings = settings

    def __call__(self, row: Row) -> Row | Drop:
        agreed = row.label.agreement
        if agreed is None:
            is_open = row.label.disputed and self._settings.decided
            return Drop("disputed") if is_open else row
        return Drop("teachers_disagree") if agreed < self._settings.least else row
