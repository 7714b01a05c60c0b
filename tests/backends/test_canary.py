from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.backends.canary import complaint, tokens
from proxy.protocol.adapter import Canary

CANARY = Canary([1], [10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 25])
LATE = Canary([1], [10, 11, 12, 13], [10, 11, 12, 99])


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(ord("a") + id) for id in ids)


def test_trained_answer_is_a_proof():
    assert complaint(CANARY, [10, 11, 12], 3, decode) is None
    assert complaint(CANARY, decode([10, 11, 12]), 3, decode) is None


def test_answer_that_differs_only_later_is_a_proof():
    assert complaint(CANARY, [10, 11, 12, 77, 78], 3, decode) is None


def test_answer_that_differs_at_once_is_none():
    assert complaint(CANARY, [10, 77, 12], 3, decode) == (
        "its answer is not the trained one's within 3 tokens"
    )
    assert complaint(CANARY, "zzz", 3, decode)


@pytest.mark.parametrize("answered", [[20, 21, 22], decode([20, 21, 22])])
def test_answer_of_the_base_model_is_told_as_such(answered: list[int] | str):
    assert "does not have the adapter" in (complaint(CANARY, answered, 3, decode) or "")


def test_base_that_says_the_same_at_first_is_told_apart_where_it_differs():
    assert tokens(LATE, 2) == 4
    assert complaint(LATE, [10, 11, 12, 13], 2, decode) is None
    assert "does not have the adapter" in (complaint(LATE, [10, 11, 12, 99], 2, decode) or "")


@pytest.mark.parametrize(
    ("expected", "base"), [([10, 11, 2], [10, 11, 12, 2]), ([10, 2], [10, 11, 2]), ([10, 2], [2])]
)
def test_end_of_a_short_answer_may_be_left_out_but_nothing_else(
    expected: list[int], base: list[int]
):
    canary = Canary([1], expected, base)

    assert complaint(canary, expected, 8, decode) is None
    assert complaint(canary, expected[:-1], 8, decode) is None
    assert complaint(canary, base, 8, decode)


def test_cut_answer_is_none():
    assert complaint(CANARY, [10, 11], 3, decode)


def test_canary_that_cannot_tell_adapter_from_base_proves_nothing():
    same = Canary([1], [10, 11], [10, 11])

    assert "train the adapter again" in (complaint(same, [10, 11], 2, decode) or "")


ids = st.lists(st.integers(0, 5), max_size=12)


@given(expected=ids, base=ids, agree=st.integers(1, 12))
def test_what_the_base_answers_is_never_a_proof(expected: list[int], base: list[int], agree: int):
    canary = Canary([1], expected, base)

    assert complaint(canary, base[: tokens(canary, agree)], agree, decode)


@given(expected=ids, base=ids, agree=st.integers(1, 12))
def test_what_the_trainer_saw_is_always_a_proof(expected: list[int], base: list[int], agree: int):
    # But for an end that the engine may have kept to itself, these two would be one answer.
    assume(expected not in (base, base[:-1]))
    canary = Canary([1], expected, base)

    assert complaint(canary, expected[: tokens(canary, agree)], agree, decode) is None


def test_engine_that_does_not_know_the_end_of_a_turn_goes_on():
    canary = Canary([1], [10, 11, 2], [20, 21, 22, 23])

    assert complaint(canary, [10, 11, 2, 40, 41, 42, 43, 44], 8, decode) is None
