"""BFCL's questions as rows: its types, its names, its several right answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from proxy.protocol.formats.base import Parsed, call
from proxy.protocol.openai import ChatRequest, Tool
from proxy.protocol.toolcheck import check
from trainer import dataset
from trainer.errors import SourceError
from trainer.recipe import BfclSettings, Recipe, SplitSettings, VarietySettings
from trainer.rows import ABSTAIN, Row
from trainer.scorers.toolcall import score
from trainer.sources.base import Skips
from trainer.sources.bfcl import BfclSource

needs_bfcl = pytest.mark.skipif(
    find_spec("bfcl_eval") is None, reason="bfcl-eval is not installed; run `make train-setup`"
)
FLOORS = {
    "simple_python": 350,
    "multiple": 180,
    "live_simple": 230,
    "live_multiple": 950,
    "irrelevance": 200,
    "live_irrelevance": 800,
}
"""Category → rows that it has at the least."""


def rows_of(*categories: str, **globs: tuple[str, ...]) -> Iterator[Row]:
    return BfclSource(BfclSettings(categories=list(categories), **globs), Skips()).rows()


# ---------------------------------------------------------------- the installed data


@needs_bfcl
@pytest.mark.parametrize("category", FLOORS)
def test_a_category_has_its_rows(category):
    assert len(list(rows_of(category))) >= FLOORS[category]


@needs_bfcl
@pytest.mark.parametrize("category", ["irrelevance", "live_irrelevance"])
def test_in_an_irrelevance_category_nothing_is_called(category):
    rows = list(rows_of(category))

    assert {(len(row.calls), row.text) for row in rows} == {(0, ABSTAIN)}


@needs_bfcl
@pytest.mark.parametrize("category", ["simple_python", "multiple", "live_simple", "live_multiple"])
def test_in_any_other_category_one_tool_is_called(category):
    rows = list(rows_of(category))

    assert {(len(row.calls), len(row.accepted), row.text) for row in rows} == {(1, 1, "")}


@needs_bfcl
def test_every_sound_label_passes_the_proxys_verification_and_is_its_own_right_answer():
    made = dataset.build(rows_of(*FLOORS), EVERYTHING)
    sound = [row for row in made.train if row.calls]

    assert len(sound) > 1800
    assert [row.source for row in sound if check(_calls(row), _request(row))] == []
    assert not [r.source for r in sound if not score(r, Parsed("", tuple(_calls(r)))).call_exact]


@needs_bfcl
def test_nearly_every_label_is_accepted_by_bfcls_own_values():
    rows = list(rows_of("simple_python", "live_multiple"))

    matches = [score(row, Parsed("", tuple(_calls(row)))).call_match for row in rows]
    assert sum(matches) / len(matches) > 0.98


@needs_bfcl
def test_few_labels_break_their_schema():
    made = dataset.build(rows_of(*FLOORS), EVERYTHING)

    assert sum(made.dropped.values()) < 50


@needs_bfcl
def test_the_order_of_rows_is_stable():
    source = BfclSource(BfclSettings(categories=["live_simple"]), Skips())

    assert list(source.rows()) == list(source.rows())


EVERYTHING = Recipe(
    domain="test",
    format="structured",
    template="structured",
    sources=[],
    split=SplitSettings(unseen_tools=0.0, seen=0.0, validation=0),
    variety=VarietySettings(copies=1, distractors=1, unrelated=0.0, negatives=0.9),
)


def _calls(row: Row) -> list:
    return [call(c.name, c.arguments) for c in row.calls]


def _request(row: Row) -> ChatRequest:
    tools = [Tool("function", function) for function in row.functions]
    return ChatRequest(model="headrace", messages=row.messages, tools=tools)


# ---------------------------------------------------------------- data of our own


QUESTION = {
    "id": "q_0",
    "question": [[{"role": "user", "content": "Book  a table in\nOslo"}]],
    "function": [
        {
            "name": "table.book",
            "description": "Books a table.",
            "parameters": {
                "type": "dict",
                "required": ["city", "at"],
                "properties": {
                    "city": {"type": "string", "description": "A town"},
                    "at": {
                        "type": "dict",
                        "required": ["lat"],
                        "properties": {"lat": {"type": "float"}, "lon": {"type": "float"}},
                    },
                    "span": {"type": "tuple", "items": {"type": "integer"}},
                    "tag": {"type": "any", "optional": True},
                    "unit": {"type": "string", "enum": ["plain", "fancy"], "default": "plain"},
                },
            },
        }
    ],
}
TRUTH = {"table.book": {"city": ["Oslo", "Oslo, NO"], "at": [{"lat": [1.5], "lon": [2.5, ""]}]}}


@pytest.fixture
def bfcl(tmp_path, monkeypatch) -> Path:
    """The data folder of a package `bfcl_eval` that holds no questions yet."""
    monkeypatch.delitem(sys.modules, "bfcl_eval", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    data = tmp_path / "bfcl_eval" / "data"
    (data / "possible_answer").mkdir(parents=True)
    (tmp_path / "bfcl_eval" / "__init__.py").touch()
    return data


def ask(bfcl: Path, truth: object = None, **question: object) -> list[Row]:
    """The rows of a category with one question."""
    name = "BFCL_v4_own.json"
    (bfcl / name).write_text(json.dumps(QUESTION | question) + "\n\n")
    if truth is not None:
        answer = {"id": "q_0", "ground_truth": [truth]}
        (bfcl / "possible_answer" / name).write_text(json.dumps(answer))
    return list(rows_of("own"))


def arguments(row: Row) -> object:
    return msgspec.json.decode(row.calls[0].arguments)


def test_pythons_types_become_json_schemas(bfcl):
    (row,) = ask(bfcl, TRUTH)

    assert msgspec.json.decode(row.functions[0].parameters) == {
        "type": "object",
        "required": ["city", "at"],
        "properties": {
            "city": {"type": "string", "description": "A town"},
            "at": {
                "type": "object",
                "required": ["lat"],
                "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
            },
            "span": {"type": "array", "items": {"type": "integer"}},
            "tag": {},
            "unit": {"type": "string", "enum": ["plain", "fancy"], "default": "plain"},
        },
    }


def test_dots_in_names_become_underscores_on_both_sides(bfcl):
    (row,) = ask(bfcl, TRUTH)

    assert (row.functions[0].name, row.calls[0].name) == ("table_book", "table_book")


def test_of_the_right_values_the_first_is_learnt(bfcl):
    (row,) = ask(bfcl, TRUTH)

    assert arguments(row) == {"city": "Oslo", "at": {"lat": 1.5}}


def test_arguments_are_learnt_in_the_schemas_order(bfcl):
    (row,) = ask(bfcl, {"table.book": {"unit": ["fancy"], "at": [{"lat": [1]}], "city": ["Oslo"]}})

    assert list(arguments(row)) == ["city", "at", "unit"]


@pytest.mark.parametrize(
    ("values", "learnt"),
    [(["fancy", ""], False), (["", "fancy"], False), (["fancy"], True), (["Oslo", ""], True)],
)
def test_an_optional_argument_is_learnt_when_it_must_be_given_or_was_said(bfcl, values, learnt):
    truth = {"table.book": TRUTH["table.book"] | {"unit": values}}

    (row,) = ask(bfcl, truth)

    assert ("unit" in arguments(row)) is learnt


def test_objects_in_a_list_are_learnt_with_one_value_each(bfcl):
    truth = {"table.book": TRUTH["table.book"] | {"span": [[{"n": [1, 2]}, {"n": [3]}]]}}

    (row,) = ask(bfcl, truth)

    assert arguments(row)["span"] == [{"n": 1}, {"n": 3}]


def test_all_right_values_are_kept(bfcl):
    (row,) = ask(bfcl, TRUTH)

    (accepted,) = row.accepted
    assert msgspec.json.decode(accepted["city"]) == ["Oslo", "Oslo, NO"]


def test_a_row_says_where_it_comes_from_and_what_was_asked(bfcl):
    (row,) = ask(bfcl, TRUTH)

    assert (row.source, row.license, row.group) == (
        "bfcl:q_0",
        "Apache-2.0",
        "book a table in oslo",
    )


def test_a_question_without_an_answer_calls_nothing(bfcl):
    (row,) = ask(bfcl)

    assert (row.calls, row.accepted, row.text) == ([], [], ABSTAIN)


def test_a_question_of_several_turns_is_left_out(bfcl):
    turn = QUESTION["question"][0]

    assert ask(bfcl, TRUTH, question=[turn, turn]) == []


@pytest.mark.parametrize(
    ("tools", "without", "taken"),
    [
        (("*",), (), 1),
        (("table.*",), (), 1),
        (("hotel.*",), (), 0),
        (("*",), ("*.book",), 0),
        (("Table.*",), (), 0),
    ],
)
def test_rows_are_chosen_by_the_names_of_their_tools(bfcl, tools, without, taken):
    ask(bfcl, TRUTH)

    assert len(list(rows_of("own", tools=tools, without=without))) == taken


# ---------------------------------------------------------------- what is missing


def test_without_the_package_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)

    with pytest.raises(SourceError, match=r"needs the package bfcl-eval; run `make train-setup`"):
        list(rows_of("live_simple"))


def test_an_unknown_category_is_told_with_its_file(bfcl):
    with pytest.raises(SourceError, match=r"BFCL_v4_nothing\.json"):
        list(rows_of("nothing"))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"id": "a"}', b'{"id": "\xff"}'])
def test_a_broken_file_is_told(bfcl, content):
    (bfcl / "BFCL_v4_own.json").write_bytes(content)

    with pytest.raises(SourceError, match=r"BFCL_v4_own\.json"):
        list(rows_of("own"))
