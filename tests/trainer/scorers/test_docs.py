"""The documentation benchmark: every reference passes its own check, and wrong answers do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

pytest.importorskip("pandas", reason="needs the train extra")
pytest.importorskip("requests", reason="needs the train extra")

import trainer.benchmarks
from trainer.benchmarks import python_docs
from trainer.errors import DatasetError, SandboxError
from trainer.sandbox import Limits, Sandbox
from trainer.scorers.docs import MARKS, mark

QUESTIONS = {question.id: question for question in python_docs()}
WORDS = QUESTIONS["basic-01"]


@pytest.fixture(scope="module")
def place() -> Iterator[Sandbox]:
    sandbox = Sandbox(Limits(seconds=20), preload=("numpy", "pandas", "requests"))
    try:
        sandbox.run("")
    except SandboxError as error:
        pytest.skip(str(error))
    yield sandbox
    sandbox.close()


def answer(code: str, said: str = "A Counter counts what it is given, of course.") -> str:
    return f"{said}\n\n```python\n{code}\n```\n"


def test_there_are_a_hundred_questions_of_five_kinds():
    assert Counter(q.category for q in QUESTIONS.values()) == {
        "basic": 30,
        "error_handling": 20,
        "advanced": 25,
        "performance": 15,
        "best_practice": 10,
    }


@pytest.mark.parametrize("id", QUESTIONS)
def test_a_reference_passes_its_own_check(place, id):
    found = mark(QUESTIONS[id], QUESTIONS[id].reference, place)

    assert (found.good, found.fault) == (True, "")


@pytest.mark.parametrize("id", QUESTIONS)
def test_the_reference_of_another_question_does_not(place, id):
    ids = list(QUESTIONS)
    other = QUESTIONS[ids[(ids.index(id) + 1) % len(ids)]]

    assert not mark(QUESTIONS[id], other.reference, place).correct


def test_the_questions_are_frozen(monkeypatch):
    monkeypatch.setattr(trainer.benchmarks, "SHA256", "0" * 64)

    with pytest.raises(DatasetError, match="frozen"):
        python_docs()


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("", ()),
        ("A Counter does that, and it does it well.", ("complete",)),
        (answer("def top_words("), ("has_code", "complete")),
        (answer("import nowhere_to_be_found"), ("has_code", "syntax", "complete")),
        (answer("1 / 0"), ("has_code", "syntax", "imports", "current", "complete")),
        (
            answer("def top_words(text, n):\n    return []"),
            ("has_code", "syntax", "imports", "runs", "current", "complete"),
        ),
        (answer(WORDS.code, "Here:"), MARKS[:-1]),
    ],
)
def test_an_answer_has_the_marks_that_it_earns(place, text, held):
    found = mark(WORDS, text, place)

    expected = set(held) - ({"complete"} if not found.has_code else set())
    assert {name for name in MARKS if getattr(found, name)} == expected


def test_what_has_a_newer_name_is_not_current(place):
    """It runs without a warning: ruff knows it."""
    found = mark(WORDS, answer("from typing import List\nnames: List[str] = []"), place)

    assert (found.runs, found.current) == (True, False)


def test_what_a_package_is_about_to_drop_is_not_current(place):
    old = answer("import datetime\ndatetime.datetime.utcnow()\n" + WORDS.code)
    new = answer("import warnings\nwarnings.warn('going', DeprecationWarning)\n" + WORDS.code)

    assert mark(WORDS, old, place).runs
    assert not mark(WORDS, new, place).current


def test_a_script_is_not_run_as_one(place):
    text = answer(WORDS.code + "\nif __name__ == '__main__':\n    raise SystemExit(1)")

    assert mark(WORDS, text, place).correct


def test_several_blocks_are_one_program(place):
    code = WORDS.code.split("\n\n")
    text = "\n".join(answer(part) for part in code)

    assert mark(WORDS, text, place).correct


def test_marks_can_be_written_and_read(place):
    found = mark(WORDS, WORDS.reference, place)

    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
