"""Issues and discussions: a problem and what solved it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.recipe.sources import GithubSettings
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.github import GithubSource

HELP = {"author": {"login": "bob"}, "authorAssociation": "MEMBER", "body": "Pass `x=1`."}
ISSUE = {
    "number": 7,
    "title": "Crash",
    "body": "It crashes.",
    "state": "CLOSED",
    "url": "https://github.com/o/r/issues/7",
    "author": {"login": "ann"},
    "createdAt": "2020-01-02T03:04:05Z",
    "comments": [{"author": {"login": "cyd"}, "body": "Me too."}, HELP],
}


def rows(directory: Path, *threads: object) -> tuple[list[Row], Skips]:
    (directory / "issues.json").write_text(json.dumps(threads))
    skips = Skips()
    given = GithubSettings(paths=[str(directory / "issues.json")], license="MIT")
    return list(GithubSource(given, skips).rows()), skips


def test_a_closed_issue_is_solved_by_what_a_maintainer_said_last(tmp_path):
    (row,), _ = rows(tmp_path, ISSUE)

    assert (row.messages[0].text, row.text) == ("Crash\n\nIt crashes.", "Pass `x=1`.")
    assert (row.source, row.license) == ("https://github.com/o/r/issues/7", "MIT")
    assert (row.author, row.at) == ("bob (answer), ann (question)", 1577934245.0)


def test_a_discussion_is_solved_by_its_answer(tmp_path):
    discussion = {"title": "How?", "answer": HELP, "comments": {"nodes": []}}

    (row,), _ = rows(tmp_path, discussion)

    assert (row.messages[0].text, row.text) == ("How?", "Pass `x=1`.")


def test_the_rest_interfaces_names_are_read_too(tmp_path):
    comment = {"user": {"login": "bob"}, "author_association": "OWNER", "body": "Fixed."}
    issue = {
        "title": "Crash",
        "body": None,
        "state": "closed",
        "html_url": "https://x/7",
        "user": {"login": "ann"},
        "comments": [comment],
    }

    (row,), _ = rows(tmp_path, issue)

    assert (row.text, row.source) == ("Fixed.", "https://x/7")


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "OPEN"},
        {"comments": []},
        {"comments": 3},
        {"comments": [HELP | {"authorAssociation": "NONE"}]},
        {"comments": [HELP | {"author": {"login": "ann"}}]},
        {"comments": [HELP | {"body": " "}]},
    ],
)
def test_without_a_solution_there_is_no_row(tmp_path, changes):
    made, skips = rows(tmp_path, ISSUE | changes)

    assert (made, dict(skips.left_out)) == ([], {"no_solution": 1})


def test_a_broken_thread_is_named_and_the_next_one_read(tmp_path):
    made, skips = rows(tmp_path, {"body": "no title"}, {"title": "a", "comments": [1]}, ISSUE)

    assert len(made) == 1
    # The second is open: its comments are never looked at.
    assert [s.place for s in skips.told["missing_or_wrong_field"]] == [f"{tmp_path}/issues.json[0]"]
