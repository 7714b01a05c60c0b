"""Batches: every example once, memory bounded, steps of the size that was asked for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from trainer.batches import padded, steps
from trainer.tokens import Example

lengths = st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=150)
sizes = st.integers(min_value=1, max_value=400)


def examples(lengths: list[int]) -> list[Example]:
    """Examples of these lengths; the first id of each is its number."""
    return [Example([number] * length, 0) for number, length in enumerate(lengths)]


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_every_example_comes_once(lengths, micro, batch, seed):
    plan = steps(examples(lengths), micro, batch, random.Random(seed))

    came = [example for step in plan for micro in step for example in micro]
    assert sorted(came) == sorted(examples(lengths))


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_a_micro_batch_is_no_larger_than_asked_unless_one_example_is(lengths, micro, batch, seed):
    plan = steps(examples(lengths), micro, batch, random.Random(seed))

    assert all(padded(part) <= micro or len(part) == 1 for step in plan for part in step)


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_a_step_is_large_enough_and_not_larger_by_more_than_its_last_part(
    lengths, micro, batch, seed
):
    plan = steps(examples(lengths), micro, batch, random.Random(seed))

    assert all(sum(map(padded, step)) >= batch for step in plan[:-1])
    assert all(sum(map(padded, step[:-1])) < batch for step in plan)


@given(lengths=lengths, micro=sizes, batch=sizes, seed=st.integers())
def test_no_step_and_no_part_of_it_is_empty(lengths, micro, batch, seed):
    plan = steps(examples(lengths), micro, batch, random.Random(seed))

    assert all(plan)
    assert all(part for step in plan for part in step)


@given(lengths=lengths, seed=st.integers())
def test_the_same_seed_gives_the_same_plan(lengths, seed):
    first = steps(examples(lengths), 100, 200, random.Random(seed))

    assert steps(examples(lengths), 100, 200, random.Random(seed)) == first


def test_another_seed_gives_another_plan():
    many = examples([5] * 50)

    assert steps(many, 20, 40, random.Random(1)) != steps(many, 20, 40, random.Random(2))


def test_sorting_by_length_saves_padding():
    mixed = examples([10, 50] * 48)

    plan = steps(mixed, 100, 100, random.Random(0))

    assert sum(padded(micro) for step in plan for micro in step) == 48 * 10 + 48 * 50


def test_without_examples_there_is_no_step():
    assert steps([], 100, 100, random.Random(0)) == []
