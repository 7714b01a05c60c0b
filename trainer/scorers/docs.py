"""Judging an answer about Python by what can be executed: no opinion is needed for that.

    has_code   it shows a block of Python
    syntax     which parses
    imports    and imports only what is installed
    runs       and runs to its end, in the sandbox
    correct    and does what was asked: the question's check passes
    current    no package warns of what it calls while it runs, and ruff knows nothing newer
    complete   it explains, shows code, and mentions all that the question needs

Each mark after the first asks for the one before, but for the last two; `good` is all of them.
"""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

from trainer.benchmarks import Question
from trainer.curate.code import blocks, imported, is_installed, outdated
from trainer.recipe.curation import CodeDeprecatedSettings
from trainer.syntax import parsed

MARKS = ("has_code", "syntax", "imports", "runs", "correct", "current", "complete")
RULES = CodeDeprecatedSettings()
"""The rules that rows are filtered by; they find what runs without a warning, too."""
_LEAST_WORDS = 6
"""Of an explanation."""
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
# Code under `if __name__ == "__main__"` is no part of what is asked for: it must not run. Some of
# the standard library looks the module up by its name.
_IMPORTED = (
    "import sys as _sys\n_sys.modules['answer'] = _sys.modules['__main__']\n__name__ = 'answer'\n"
)


class Ran(Protocol):
    """What became of a snippet."""

    @property
    def reason(self) -> str:
        """`ok`, or what it ran into."""

    @property
    def deprecations(self) -> list[str]: ...


class Runs(Protocol):
    """A place where code that nobody vouches for can run, such as trainer.sandbox.Sandbox."""

    def run(self, code: str) -> Ran: ...


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """One answer judged."""

    has_code: bool
    syntax: bool
    imports: bool
    runs: bool
    correct: bool
    current: bool
    complete: bool
    fault: str = ""
    """What its code, or the check after it, ran into."""

    @property
    def good(self) -> bool:
        return all(getattr(self, mark) for mark in MARKS)


def mark(question: Question, text: str, place: Runs) -> Marks:
    """The marks of an answer; its code runs in `place`, with the check and without."""
    code = "\n\n".join(blocks(text))
    syntax = bool(code.strip()) and parsed(code) is not None
    imports = syntax and all(map(is_installed, imported(code)))
    alone = place.run(_IMPORTED + code) if imports else None
    runs = alone is not None and alone.reason == "ok"
    checked = place.run(f"{_IMPORTED}{code}\n\n{question.check}") if runs else None
    return Marks(
        has_code=bool(code.strip()),
        syntax=syntax,
        imports=imports,
        runs=runs,
        correct=checked is not None and checked.reason == "ok",
        current=alone is not None and not alone.deprecations and not outdated(code, RULES),
        complete=_is_complete(question, text, code),
        fault=_fault(alone, checked),
    )


def _fault(alone: Ran | None, checked: Ran | None) -> str:
    last = checked or alone
    return "" if last is None or last.reason == "ok" else last.reason


def _is_complete(question: Question, text: str, code: str) -> bool:
    said = _FENCED.sub(" ", text)
    mentioned = text.casefold()
    return (
        bool(code.strip())
        and len(said.split()) >= _LEAST_WORDS
        and all(need.casefold() in mentioned for need in question.needs)
    )
