"""Datasets: nothing leaks from one side to another, and nothing gets lost without a reason."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.protocol.openai import Function, FunctionCall
from tests.trainer.examples import TOOLS, WEATHER, corpus, function, row, weather
from trainer import dataset
from trainer.dataset import SIDES, Dataset
from trainer.errors import DatasetError
from trainer.recipe import Recipe, SplitSettings, VarietySettings
from trainer.rows import Row

RECIPE = Recipe(
    domain="test",
    format="structured",
    template="structured",
    sources=[],
    split=SplitSettings(unseen_tools=0.3, seen=0.3, validation=6),
    variety=VarietySettings(copies=2, distractors=3, unrelated=0.1, negatives=0.3),
)
TAKEN_AS_IT_IS = msgspec.structs.replace(RECIPE, split=SplitSettings(0.0, 0.0, 0))
"""Every row on the training side."""
ALONE = msgspec.structs.replace(TAKEN_AS_IT_IS, variety=VarietySettings(distractors=0))
"""The same, with no other tool on offer."""

seeds = st.integers(min_value=0, max_value=1000)
corpora = seeds.map(corpus)
few = settings(max_examples=30)
"""A dataset takes some milliseconds to build; most of what breaks a law does so in every one."""


def built(rows: list[Row], seed: int = 0) -> Dataset:
    return dataset.build(rows, msgspec.structs.replace(RECIPE, seed=seed))


def varied(rows: list[Row], **settings: float) -> list[Row]:
    """The training side that is made of these rows alone."""
    recipe = msgspec.structs.replace(TAKEN_AS_IT_IS, variety=VarietySettings(**settings))
    return dataset.build(rows, recipe).train


def offered(rows: list[Row]) -> set[str]:
    return {function.name for row in rows for function in row.functions}


def called(rows: list[Row]) -> set[str]:
    return {call.name for row in rows for call in row.calls}


# ---------------------------------------------------------------- sides


@few
@given(rows=corpora, seed=seeds)
def test_the_order_of_the_source_changes_nothing(rows, seed):
    shuffled = random.Random(seed).sample(rows, len(rows))

    assert built(shuffled).fingerprint == built(rows).fingerprint
    assert built(shuffled).dropped == built(rows).dropped


@few
@given(corpora, seeds)
def test_the_same_rows_and_recipe_have_the_same_fingerprint(rows, seed):
    assert built(rows, seed).fingerprint == built(rows, seed).fingerprint


@few
@given(corpora)
def test_no_question_is_on_two_sides(rows):
    sides = [{row.group for row in getattr(built(rows), side)} for side in SIDES]

    assert sum(map(len, sides)) == len(set.union(*sides))


@few
@given(corpora)
def test_training_shows_no_unseen_tool(rows):
    made = built(rows)

    assert not called(made.unseen) & offered(made.train)


@few
@given(corpora)
def test_unseen_rows_without_a_call_offer_no_tool_that_training_shows(rows):
    made = built(rows)

    answered = [row for row in made.unseen if not row.calls]
    assert not offered(answered) & offered(made.train + made.validation)


@few
@given(corpora)
def test_training_shows_every_tool_that_the_seen_side_calls(rows):
    made = built(rows)

    assert called(made.seen) <= offered(made.train)


@few
@given(corpora)
def test_a_held_out_row_is_never_trained_on_as_rows_are_added(rows):
    before, after = built(rows[:100]), built(rows)

    held_out = {row.source for row in before.seen + before.unseen}
    assert not held_out & {row.source for row in after.train + after.validation}


@few
@given(corpora)
def test_training_and_both_tests_have_rows_and_validation_no_more_than_asked(rows):
    made = built(rows)

    assert made.train
    assert made.seen
    assert made.unseen
    assert len(made.validation) <= 6


def test_shares_of_nothing_hold_nothing_out():
    made = dataset.build(corpus(0), TAKEN_AS_IT_IS)

    assert (made.validation, made.seen, made.unseen) == ([], [], [])


# ---------------------------------------------------------------- what is dropped


@few
@given(corpora)
def test_every_row_is_on_a_side_or_counted_with_a_reason(rows):
    made = built(rows)

    kept = {row.source for side in SIDES for row in getattr(made, side)}
    assert len(kept) + sum(made.dropped.values()) == len(rows)


TOOL_OF_NO_SCHEMA = Function("weather", parameters=msgspec.Raw(b'{"type": "dictionary"}'))
UNSOUND = {
    "several_calls": row(weather(), weather("Bergen")),
    "tool_offered_twice": row(weather(), functions=(WEATHER, WEATHER)),
    "calls_a_tool_not_offered": row(weather(), functions=(function("tides"),)),
    "label_breaks_the_schema": row(FunctionCall("weather", '{"city": 7}')),
    "no_tool_left": row(functions=()),
}


@pytest.mark.parametrize("reason", UNSOUND)
def test_a_row_that_would_teach_something_wrong_is_counted_by_its_reason(reason):
    made = dataset.build([UNSOUND[reason]], TAKEN_AS_IT_IS)

    assert made.train == []
    assert {why: count for why, count in made.dropped.items() if count} == {reason: 1}


@pytest.mark.parametrize(
    "broken",
    [
        row(FunctionCall("weather", "{}"), functions=(TOOL_OF_NO_SCHEMA,)),
        row(FunctionCall("weather", "no JSON")),
    ],
)
def test_a_row_that_cannot_be_checked_is_counted(broken):
    made = dataset.build([broken], TAKEN_AS_IT_IS)

    assert made.train == []
    assert sum(made.dropped.values()) == 1


def test_a_training_row_whose_question_is_tested_is_counted():
    tested, known = sorted(TOOLS, key=lambda name: dataset._share("tool:" + name))[:2]
    rows = [
        row(FunctionCall(name, "{}"), question="Same?", functions=(function(name),), source=name)
        for name in (tested, known)
    ]
    split = SplitSettings(dataset._share("tool:" + known), 0.0, 0)

    made = dataset.build(rows, msgspec.structs.replace(RECIPE, split=split))

    assert ([r.source for r in made.unseen], made.train) == ([tested], [])
    assert {why: count for why, count in made.dropped.items() if count} == {
        "question_on_two_sides": 1
    }


# ---------------------------------------------------------------- variety


@few
@given(corpora)
def test_a_called_row_becomes_as_many_examples_as_asked(rows):
    made = varied(rows, copies=3)

    times = Counter(row.source for row in made if row.calls)
    assert set(times.values()) == {3}
    assert set(times) == {row.source for row in rows if row.calls}


@few
@given(rows=corpora, most=st.integers(min_value=0, max_value=5))
def test_an_example_offers_no_more_tools_beside_the_right_one_than_asked(rows, most):
    made = varied(rows, distractors=most)

    assert max(len(row.functions) for row in made if row.calls) <= 1 + most


@few
@given(corpora)
def test_the_right_tool_is_always_offered_and_no_tool_twice(rows):
    made = built(rows)

    examples = [row for side in SIDES for row in getattr(made, side) if row.calls]
    assert all(row.calls[0].name in offered([row]) for row in examples)
    assert all(len(offered([row])) == len(row.functions) for row in examples)


@few
@given(rows=corpora, negatives=st.sampled_from([0.1, 0.3, 0.5]))
def test_no_more_examples_than_asked_call_nothing(rows, negatives):
    made = varied(rows, negatives=negatives, unrelated=0.0)

    assert sum(not row.calls for row in made) <= negatives * len(made) + 0.5


@few
@given(corpora)
def test_where_the_right_tool_is_gone_nothing_is_called_and_something_is_said(rows):
    called_rows = {row.source: row for row in rows if row.calls}

    made = varied(list(called_rows.values()), unrelated=1.0)

    gone = [row for row in made if not row.calls]
    assert gone
    assert all(row.text and row.functions for row in gone)
    assert not any(offered([row]) & offered([called_rows[row.source]]) for row in gone)


def test_added_tools_share_no_word_with_the_right_one():
    names = ("get_weather", "getWeatherNow", "WeatherMap", "hotel", "flight", "music", "taxi")
    rows = [
        row(FunctionCall(name, "{}"), functions=(function(name),), source=name) for name in names
    ]

    made = varied(rows, distractors=2, copies=20)

    beside = {name for r in made if r.source == "get_weather" for name in offered([r])}
    assert beside == {"get_weather", "hotel", "flight", "music", "taxi"}


def test_the_right_tool_has_no_place_of_its_own():
    made = varied(corpus(1), distractors=3, copies=4)

    first = [row.functions[0].name == row.calls[0].name for row in made if row.calls]
    assert 0.1 < sum(first) / len(first) < 0.9


def test_another_seed_makes_other_examples_of_the_same_rows():
    first, second = built(corpus(0), seed=1), built(corpus(0), seed=2)

    assert first.fingerprint != second.fingerprint
    assert {row.source for row in first.seen} == {row.source for row in second.seen}


def test_too_few_tools_to_choose_among_are_told_with_the_remedy():
    with pytest.raises(DatasetError, match=r"too few.*`distractors`"):
        varied([row(weather())] * 20, distractors=3)


# ---------------------------------------------------------------- on disk


@few
@given(seeds)
def test_a_dataset_is_read_as_it_was_written(directories, seed):
    directory = directories / str(seed)
    dataset.write(built(corpus(seed)), directory)

    assert dataset.read(directory) == built(corpus(seed))


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture
def written(tmp_path):
    dataset.write(built(corpus(0)), tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["manifest.json", "train.jsonl", "unseen.jsonl"])
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()

    with pytest.raises(DatasetError, match=f"{written}.*{name}"):
        dataset.read(written)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"fingerprint": "x"}', b'{"a": "\xff"}'])
def test_a_broken_manifest_is_told_with_the_directory(written, content):
    (written / "manifest.json").write_bytes(content)

    with pytest.raises(DatasetError, match=str(written)):
        dataset.read(written)


def test_rows_that_were_changed_are_told(written):
    lines = (written / "seen.jsonl").read_bytes().splitlines(keepends=True)
    (written / "seen.jsonl").write_bytes(b"".join(lines[1:]))

    with pytest.raises(DatasetError, match="not those of its manifest; build it again"):
        dataset.read(written)


def test_accepted_values_that_were_changed_are_told(tmp_path):
    accepted = row(weather(), accepted={"city": ["Oslo"]})
    dataset.write(dataset.build([accepted], ALONE), tmp_path)
    train = tmp_path / "train.jsonl"
    train.write_bytes(train.read_bytes().replace(b'{"city":["Oslo"]}', b'{"city":["Rome"]}'))

    with pytest.raises(DatasetError, match="not those of its manifest; build it again"):
        dataset.read(tmp_path)
