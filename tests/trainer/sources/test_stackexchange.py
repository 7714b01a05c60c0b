"""A data dump: accepted answers, with their licence and authors; nothing in it is believed."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

pytest.importorskip("lxml", reason="needs the docs extra")

from trainer.recipe.sources import StackExchangeSettings
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.stackexchange import StackExchangeSource

QUESTION = {
    "Id": "1",
    "PostTypeId": "1",
    "AcceptedAnswerId": "2",
    "Score": "5",
    "Title": "How to sort?",
    "Body": "<p>I have a <code>list</code>.</p>",
    "Tags": "<python><list>",
    "OwnerDisplayName": "ann",
    "ContentLicense": "CC BY-SA 4.0",
}
ANSWER = {
    "Id": "2",
    "PostTypeId": "2",
    "ParentId": "1",
    "Score": "7",
    "Body": "<p>So:</p><pre><code>sorted(x)</code></pre>",
    "OwnerUserId": "42",
    "ContentLicense": "CC BY-SA 4.0",
    "CreationDate": "2020-01-02T03:04:05.000",
}


def post(given: dict[str, str], **changes: str | None) -> str:
    fields = {key: value for key, value in (given | changes).items() if value is not None}
    return f"  <row {' '.join(f'{key}={quoteattr(value)}' for key, value in fields.items())} />"


def dump(directory: Path, *lines: str) -> Path:
    path = directory / "Posts.xml"
    path.write_text("\n".join(['<?xml version="1.0"?>', "<posts>", *lines, "</posts>"]))
    return path


def rows(path: Path, **settings: object) -> tuple[list[Row], Skips]:
    skips = Skips()
    given = StackExchangeSettings(paths=[str(path)], site="stackoverflow.com", **settings)
    return list(StackExchangeSource(given, skips).rows()), skips


def test_a_question_and_its_accepted_answer_are_a_row(tmp_path):
    (row,), skips = rows(dump(tmp_path, post(QUESTION), post(ANSWER)))

    assert row.messages[0].text == "How to sort?\n\nI have a `list`."
    assert row.text == "So:\n\n```python\nsorted(x)\n```"
    assert row.source == "https://stackoverflow.com/a/2"
    assert (row.license, row.at) == ("CC BY-SA 4.0", 1577934245.0)
    assert row.author == "user 42 (answer), ann (question)"
    assert len(skips) == 0


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ({"Score": "2"}, {}, "low_score"),
        ({}, {"Score": "-1"}, "low_score"),
        ({"AcceptedAnswerId": None}, {}, "no_accepted_answer"),
        ({"AcceptedAnswerId": "9"}, {}, "accepted_answer_not_found"),
        ({"Tags": "|java|"}, {}, "other_tags"),
    ],
)
def test_what_is_not_wanted_is_left_out_and_counted(tmp_path, question, answer, reason):
    path = dump(tmp_path, post(QUESTION, **question), post(ANSWER, **answer))

    made, skips = rows(path, min_score=3, tags=("python*",))

    assert made == []
    assert +skips.left_out == {reason: 1}
    assert len(skips) == 0


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY file SYSTEM "file:///etc/passwd">]>'
)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (BOMB, "no_row"),
        (post(QUESTION)[:40], "not_xml"),
        ('<row Id="&b;" PostTypeId="1"/>', "not_xml"),
        ('<row Id="&file;" PostTypeId="1"/>', "not_xml"),
        (post(QUESTION, Score="many"), "missing_or_wrong_field"),
        (post(QUESTION, Title=None), "missing_or_wrong_field"),
        ("nonsense", "no_row"),
    ],
)
def test_a_broken_line_is_named_and_the_next_ones_are_read(tmp_path, line, reason):
    path = dump(tmp_path, line, post(QUESTION), post(ANSWER))

    made, skips = rows(path)

    assert len(made) == 1
    assert [skip.place for skip in skips.told[reason]] == [f"{path}:3"]


def test_an_answer_without_a_licence_is_no_row(tmp_path):
    path = dump(tmp_path, post(QUESTION), post(ANSWER, ContentLicense=None))

    made, skips = rows(path)

    assert made == []
    assert "ContentLicense" in skips.told["missing_or_wrong_field"][0].detail
