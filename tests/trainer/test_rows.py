"""The canonical row: its id is its content, and what is written is read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.openai import FunctionCall, Message, PastCall
from tests.trainer.examples import WEATHER, corpus, function, row, weather
from trainer import rows
from trainer.errors import DatasetError

CHANGES = {
    "messages": [Message(role="user", content="Snow in Oslo?")],
    "functions": [WEATHER, function("time")],
    "calls": [weather("Bergen")],
    "text": "It rains.",
}


def test_the_same_row_has_the_same_id_everywhere():
    assert row(weather()).id == "8775e276ea9a1ffc"


@pytest.mark.parametrize("field", CHANGES)
def test_another_content_has_another_id(field):
    changed = msgspec.structs.replace(row(weather()), **{field: CHANGES[field]})

    assert changed.id != row(weather()).id


def test_how_the_json_of_a_row_is_spelt_is_no_part_of_its_id():
    spelt = msgspec.Raw(bytes(WEATHER.parameters).replace(b":", b" : "))
    past = Message(role="assistant", tool_calls=[PastCall(id="c", function=weather())])
    other = PastCall(id="c", function=FunctionCall("weather", '{ "city":"Oslo" }'))
    one = msgspec.structs.replace(row(weather()), messages=[past])

    again = msgspec.structs.replace(
        row(FunctionCall("weather", '{"city":"Oslo"}')),
        messages=[Message(role="assistant", tool_calls=[other])],
        functions=[msgspec.structs.replace(WEATHER, parameters=spelt)],
    )

    assert again.id == one.id


def test_where_a_row_comes_from_is_no_part_of_its_id():
    assert row(weather(), source="a").id == row(weather(), source="b").id


@given(st.integers(min_value=0, max_value=10_000), st.text())
def test_rows_are_read_as_they_were_written(seed, said):
    written = [*corpus(seed, size=5), row(FunctionCall("f", '{ "a":1.0}'), question=said)]

    with TemporaryDirectory() as directory:
        rows.write(Path(directory) / "rows.jsonl", written)

        assert list(rows.read(Path(directory) / "rows.jsonl")) == written


def test_the_question_is_what_the_user_said_last():
    said = [
        Message(role="user", content="Rain?"),
        Message(role="assistant", content="Where?"),
        Message(role="user", content="In Oslo."),
        Message(role="system", content="Be brief."),
    ]

    assert msgspec.structs.replace(row(), messages=said).question == "In Oslo."


def test_without_a_user_there_is_no_question():
    said = [Message(role="system", content="Be brief.")]

    assert msgspec.structs.replace(row(), messages=said).question == ""


@pytest.mark.parametrize("broken", [b"{", b"", b'{"messages": []}', b'{"source": "\xff"}', b"[]"])
def test_a_broken_line_is_named(tmp_path, broken):
    path = tmp_path / "train.jsonl"
    rows.write(path, [row(weather())])
    path.write_bytes(path.read_bytes() + broken + b"\n")

    with pytest.raises(DatasetError, match=r"train\.jsonl:2: "):
        list(rows.read(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"train\.jsonl"):
        list(rows.read(tmp_path / "train.jsonl"))
