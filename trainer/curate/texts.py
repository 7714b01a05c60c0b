"""Filters that look at what was said: instruction, language, completeness."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar

from trainer.curate.filter import Drop
from trainer.errors import RecipeError
from trainer.recipe import Recipe
from trainer.recipe.curation import CompleteSettings, InstructionSettings, LanguageSettings
from trainer.rows import Row

_ENDS = ".!?:)]}>`\"'…。！？”’*"
"""What a finished text ends with; a letter, a digit or a comma does not end one."""
_CUT = ("...", "…")


class Instruction:
    """There is a question, of a length that a person writes."""

    version: ClassVar[int] = 1

    def __init__(self, settings: InstructionSettings, recipe: Recipe) -> None:
        self._settings = settings

    def __call__(self, row: Row) -> Row | Drop:
        length = len(row.question.strip())
        if length < self._settings.least:
            return Drop("no_instruction" if length == 0 else "instruction_too_short")
        if length > self._settings.most:
            return Drop("instruction_too_long", f"{length} characters")
        if not row.calls and not row.text.strip():
            return Drop("no_answer")
        return row


class Language:
    """The question is in one of the languages asked for, or too short to tell."""

    version: ClassVar[int] = 1

    def __init__(self, settings: LanguageSettings, recipe: Recipe) -> None:
        self._settings = settings
        self._detect = _detector()

    def __call__(self, row: Row) -> Row | Drop:
        if sum(map(str.isalpha, row.question)) < self._settings.letters:
            return row
        language, certainty = self._detect(row.question[:2000])
        if language in self._settings.only or certainty < self._settings.certainty:
            return row
        return Drop("other_language", language)


@functools.cache
def _detector() -> Callable[[str], tuple[str, float]]:
    """Text → language code and how sure, 0 to 1."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise RecipeError(
            f"filters.language needs py3langid ({error}); run `make train-setup`"
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def detect(text: str) -> tuple[str, float]:
        language, certainty = identifier.classify(text)
        return str(language), float(certainty)

    return detect


class Complete:
    """A text is of a fit length and comes to its end."""

    version: ClassVar[int] = 1

    def __init__(self, settings: CompleteSettings, recipe: Recipe) -> None:
        self._settings = settings

    def __call__(self, row: Row) -> Row | Drop:
        if row.calls:
            return row
        text = row.text.strip()
        if len(text) <= self._settings.least:
            return Drop("answer_too_short", f"{len(text)} characters")
        if len(text) >= self._settings.most:
            return Drop("answer_too_long", f"{len(text)} characters")
        if text.count("```") % 2:
            return Drop("code_block_left_open")
        if text.endswith(_CUT) or text[-1] not in _ENDS:
            return Drop("ends_in_the_middle")
        return row
