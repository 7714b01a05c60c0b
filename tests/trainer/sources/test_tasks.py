"""Descriptions and examples as questions that code answers."""

from __future__ import annotations

import ast

import pytest

pytest.importorskip("lxml", reason="needs the docs extra")

from trainer.curate.code import blocks
from trainer.recipe.sources import PythonDocsSettings
from trainer.sources.lessons import lessons
from trainer.sources.tasks import Task, tasks
from trainer.sources.thing import Thing

MEAN = "def mean(data):\n    return sum(data) / len(data)"


def thing(about: str = "Return the mean of data.", **given: object) -> Thing:
    given = {"name": "statistics.mean", "library": "statistics", "code": MEAN} | given
    return Thing(signature="", source="here", license="PSF-2.0", about=about, **given)


def of_examples(*examples: str, name: str = "pandas.DataFrame.sum") -> list[Task]:
    shown = tuple(("", example) for example in examples)
    return list(
        tasks(thing("Add it up by rows.", name=name, library="pandas 3.1", code="", examples=shown))
    )


def code_of(task: Task) -> str:
    return "\n".join(blocks(task.answer)).strip()


def test_a_function_is_asked_for_by_what_it_does_and_answered_with_its_code():
    (task,) = tasks(thing())

    assert "How do I get the mean of data? Write `mean(data)`." in task.questions
    assert len(set(task.questions)) == 4
    assert task.answer == f"Return the mean of data.\n\n```python\n{MEAN}\n```"


@pytest.mark.parametrize(
    ("about", "does"),
    [
        ("Counts the words.\n\nMore of it.", "count the words"),
        ("``mean()`` returns the mean\nof data. It is one.", "get the mean of data"),
        ("The first n items", "get the first n items"),
        ("Matches it with :func:`other`.", "match it with `other`"),
    ],
)
def test_the_first_sentence_says_what_is_asked(about, does):
    (task,) = tasks(thing(about))

    assert f"How do I {does}? Write `mean(data)`." in task.questions


@pytest.mark.parametrize(
    "about",
    [
        *("", "Count it.", "Count" + " all" * 40, "Faster than others are."),
        *("Counts of the words.", "Sorts that are stable."),
    ],
)
def test_what_says_nothing_to_do_is_not_asked(about):
    assert not list(tasks(thing(about)))


def test_what_the_code_uses_is_named():
    code = "from collections import Counter\n\ndef top(w):\n    return Counter(w).most_common()"

    (task,) = tasks(thing(code=code))

    assert "It uses `collections.Counter`, `most_common`." in task.answer


def test_the_last_line_of_an_example_becomes_a_function_of_what_it_takes():
    (task,) = of_examples("df = pd.DataFrame([1])\nn = 2\ndf.sum(n, axis='index')\n# 1")

    assert code_of(task) == "def sum(df, n):\n    return df.sum(n, axis='index')"
    assert all(question.endswith("Use `axis='index'`.") for question in task.questions)
    assert "How do I add it up by rows in pandas? Write `sum(df, n)`. Use `axis='index'`." in (
        task.questions
    )


def test_examples_go_on_where_the_last_one_ended():
    first, second = of_examples("df = pd.DataFrame([1])\ndf.sum()", "pd.concat([df, df]).sum()")

    assert code_of(first) == "def sum(df):\n    return df.sum()"
    assert code_of(second) == (
        "import pandas as pd\n\ndef sum(df):\n    return pd.concat([df, df]).sum()"
    )


@pytest.mark.parametrize(
    "example",
    [
        "df = 1\ndf.mean()",
        "df = 1\nsum = df.sum()",
        "pd.Series([1]).sum()",
        "df = 1\nxy.sum(df)",
        "df = \ndf.sum()",
        "",
    ],
)
def test_an_example_that_is_about_something_else_or_takes_nothing_is_no_task(example):
    assert not of_examples(example)


def test_a_parameter_never_hides_the_function():
    (task,) = of_examples("sum = 1\nsum.sum()")

    assert ast.parse(code_of(task)).body[0].name == "sum_of"


def test_lessons_are_those_that_the_recipe_names_in_as_many_phrasings():
    settings = PythonDocsSettings(license="PSF-2.0", lessons=("tasks",), phrasings=3)
    made = list(lessons(thing(parameters="- `data`: numbers"), settings))

    assert len({row.question for row in made}) == 3
    assert {(row.text, row.group) for row in made} == {
        (f"Return the mean of data.\n\n```python\n{MEAN}\n```", "statistics:statistics.mean")
    }


def test_what_is_left_out_by_its_name_makes_no_row():
    settings = PythonDocsSettings(license="PSF-2.0", lessons=("tasks",), leave_out=("*.mean",))

    assert not list(lessons(thing(), settings))
    assert list(lessons(thing(name="statistics.median"), settings))
