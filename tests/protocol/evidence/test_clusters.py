import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.evidence.clusters import clustered, effective, sign_flip
from proxy.protocol.evidence.paired import mcnemar


def test_observations_are_summed_by_cluster():
    found = clustered([1, 0, 1, 1], ["a", "a", "b", "a"])

    assert found.means == (2 / 3, 1.0)
    assert found.mean == 0.75


def test_clusters_of_one_are_worth_what_they_are():
    assert effective(clustered([0, 1, 1, 0, 1], range(5))) == 5


def test_clusters_that_are_all_alike_are_worth_little_more_than_one_each():
    values = [float(number % 2) for number in range(40) for _ in range(10)]
    owners = [number for number in range(40) for _ in range(10)]

    assert 35 < effective(clustered(values, owners)) <= 41


def test_clusters_that_are_no_more_alike_than_chance_are_worth_all_of_it():
    values = [float(number % 2) for number in range(400)]
    owners = [number // 10 for number in range(400)]

    assert effective(clustered(values, owners)) == 400


def test_where_all_are_equal_a_cluster_counts_as_one():
    assert effective(clustered([1.0] * 12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])) == 4


def test_nothing_is_worth_nothing():
    assert effective(clustered([], [])) == 0


@given(st.integers(0, 60), st.integers(0, 60))
def test_flips_of_single_pairs_are_mcnemars_test(first, second):
    assert sign_flip([1] * first + [-1] * second) == pytest.approx(mcnemar(first, second))


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_flips_are_counted_exactly(sums):
    observed = abs(sum(sums))
    all_signs = list(itertools.product((1, -1), repeat=len(sums)))
    reached = [
        signs
        for signs in all_signs
        if abs(sum(s * one for s, one in zip(signs, sums, strict=True))) >= observed
    ]

    assert sign_flip(sums) == pytest.approx(len(reached) / len(all_signs))
