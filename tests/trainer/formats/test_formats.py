"""What every format promises: what it read it writes, and what is no row is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.examples import corpus
from tests.trainer.formats.lines import LINES
from trainer.formats import FORMATS
from trainer.formats.base import BadRow

FOREIGN = sorted(set(FORMATS) - {"headrace"})


def test_every_format_has_lines_to_test_with():
    assert sorted(LINES) == FOREIGN


@pytest.mark.parametrize("name", FOREIGN)
@given(data=st.data())
@settings(max_examples=60)
def test_what_was_read_is_written_again(name, data):
    line = data.draw(LINES[name])

    row = FORMATS[name].read(json.dumps(line).encode())

    assert json.loads(FORMATS[name].write(row)) == line


@pytest.mark.parametrize("name", FOREIGN)
@given(data=st.data())
@settings(max_examples=30)
def test_a_row_survives_being_written_and_read(name, data):
    line = json.dumps(data.draw(LINES[name])).encode()
    row = FORMATS[name].read(line)

    again = FORMATS[name].read(FORMATS[name].write(row))

    assert again == row
    assert again.id == row.id


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_our_own_rows_are_read_as_they_were_written(seed):
    rows = corpus(seed, size=5)

    assert [FORMATS["headrace"].read(FORMATS["headrace"].write(row)) for row in rows] == rows


NO_ROWS = {
    "nothing": b"",
    "half a line": b'{"messages": [{"role": "us',
    "a list": b"[]",
    "another object": b'{"text": "hi"}',
    "Latin-1": '{"instruction": "é"}'.encode("latin-1"),
    "UTF-16": '{"messages": []}'.encode("utf-16"),
    "a tower": b'{"messages": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", NO_ROWS)
def test_what_is_no_row_is_told_by_a_code(name, case):
    with pytest.raises(BadRow) as told:
        FORMATS[name].read(NO_ROWS[case])

    assert told.value.reason in ("not_json", "not_utf8", "missing_or_wrong_field")


@pytest.mark.parametrize("name", FORMATS)
@given(line=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=30)
def test_no_line_breaks_a_format(name, line):
    with pytest.raises(BadRow):
        FORMATS[name].read(line)


def test_a_parameter_of_xlam_that_says_nothing_of_itself_must_be_given():
    tools = [{"name": "ping", "parameters": {"host": 1}}]
    line = {"query": "Ping.", "tools": json.dumps(tools), "answers": "[]"}

    (function,) = FORMATS["xlam"].read(json.dumps(line).encode()).functions

    assert json.loads(bytes(function.parameters)) == {
        "type": "object",
        "properties": {"host": {}},
        "required": ["host"],
    }
