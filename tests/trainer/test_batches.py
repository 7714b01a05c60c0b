"""Batches: every example once, memory bounded, steps of the size that was asked for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from trainer.batches import Size, padded, parts, plan, steps
from trainer.recipe import TrainingSettings
from trainer.tokens import Example

lengths = st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=150)
sizes = st.integers(min_value=1, max_value=400)


def examples(lengths: list[int]) -> list[Example]:
    """Examples of these lengths; the first id of each is its number."""
    return [Example([number] * length, 0) for number, length in enumerate(lengths)]


FIFTY = examples(list(range(1, 51)))


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_every_example_comes_once(lengths, micro, batch, seed):
    made = steps(examples(lengths), Size(micro), Size(batch), random.Random(seed))

    came = [example for step in made for micro in step for example in micro]
    assert sorted(came) == sorted(examples(lengths))


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_a_micro_batch_is_no_larger_than_asked_unless_one_example_is(lengths, micro, batch, seed):
    made = steps(examples(lengths), Size(micro), Size(batch), random.Random(seed))

    assert all(padded(part) <= micro or len(part) == 1 for step in made for part in step)


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_a_step_is_large_enough_and_not_larger_by_more_than_its_last_part(
    lengths, micro, batch, seed
):
    made = steps(examples(lengths), Size(micro), Size(batch), random.Random(seed))

    assert all(sum(map(padded, step)) >= batch for step in made[:-1])
    assert all(sum(map(padded, step[:-1])) < batch for step in made)


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_no_step_and_no_part_of_it_is_empty(lengths, micro, batch, seed):
    made = steps(examples(lengths), Size(micro), Size(batch), random.Random(seed))

    assert all(made)
    assert all(part for step in made for part in step)


@given(lengths=lengths, seed=st.integers())
def test_the_same_seed_gives_the_same_plan(lengths, seed):
    first = steps(examples(lengths), Size(100), Size(200), random.Random(seed))

    assert steps(examples(lengths), Size(100), Size(200), random.Random(seed)) == first


def test_another_seed_gives_another_plan():
    many = examples([5] * 50)

    assert steps(many, Size(20), Size(40), random.Random(1)) != steps(
        many, Size(20), Size(40), random.Random(2)
    )


def test_sorting_by_length_saves_padding():
    mixed = examples([10, 50] * 48)

    made = steps(mixed, Size(100), Size(100), random.Random(0))

    assert sum(padded(micro) for step in made for micro in step) == 48 * 10 + 48 * 50


def test_without_examples_there_is_no_step():
    assert steps([], Size(100), Size(100), random.Random(0)) == []


@given(lengths=lengths, rows=st.integers(min_value=1, max_value=9), seed=st.integers())
def test_batches_can_be_counted_in_rows(lengths, rows, seed):
    made = steps(examples(lengths), Size(rows=2), Size(rows=2 * rows), random.Random(seed))

    assert all(len(micro) <= 2 for step in made for micro in step)
    assert all(sum(map(len, step)) >= 2 * rows for step in made[:-1])
    assert sum(len(micro) for step in made for micro in step) == len(lengths)


@given(lengths=lengths, rows=st.integers(min_value=1, max_value=9))
def test_parts_hold_the_same_examples(lengths, rows):
    (step,) = steps(examples(lengths), Size(400), Size(10**9), random.Random(0))

    cut = parts(step, rows)

    assert [e for micro in cut for e in micro] == [e for micro in step for e in micro]
    assert max(map(len, cut)) <= rows


def test_each_epoch_has_every_example_in_an_order_of_its_own():
    settings = TrainingSettings(epochs=2, batch_rows=5, micro_rows=5)

    planned = plan(FIFTY, settings, seed=1)

    came = [example for step in planned for micro in step for example in micro]
    assert sorted(came[:50]) == sorted(came[50:]) == sorted(FIFTY)
    assert came[:50] != came[50:]


def test_a_run_ends_with_its_last_step_whatever_its_epochs():
    settings = TrainingSettings(epochs=100, max_steps=7, batch_rows=5, micro_rows=5)

    assert len(plan(examples([5] * 20), settings, seed=1)) == 7
