"""Duplicates: what is alike is found, what is not is left, and caps hold."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.trainer.examples import row, weather
from trainer.curate import balance, duplicates, sides
from trainer.curate.sketch import PERMUTATIONS, signatures
from trainer.curate.words import shingles, template
from trainer.recipe.curation import NearSettings

NEAR = NearSettings()


def sentences(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(f"w{chance.randrange(500)}" for _ in range(40)) for _ in range(count)]


def signed(texts: list[str]) -> np.ndarray:
    rows = [row(weather(), question=text) for text in texts]
    return np.frombuffer(b"".join(signatures(rows, NEAR)), np.uint32).reshape(-1, PERMUTATIONS)


def test_the_estimate_is_near_the_similarity():
    first = sentences(1)[0]
    second = " ".join([*first.split()[:30], "x", *first.split()[31:]])
    a, b = (shingles(row(weather(), question=text), 3) for text in (first, second))

    one, other = signed([first, second])

    assert abs((one == other).mean() - len(a & b) / len(a | b)) < 0.15


def test_nearly_all_near_pairs_are_found_and_no_far_ones():
    texts = sentences(200)
    copies = [text + " and so on" for text in texts[:100]]

    pairs = duplicates.near(signed([*texts, *copies]), np.arange(300), 0.85)

    found = {tuple(sorted(pair)) for pair in pairs.tolist()}
    meant = {(n, 200 + n) for n in range(100)}
    assert len(found & meant) >= 97
    assert not found - meant


def test_pairs_do_not_depend_on_the_order_of_rows():
    texts = [*sentences(60), *(text + " so" for text in sentences(60)[:30])]
    shuffled = random.Random(1).sample(range(90), 90)
    ranks = np.empty(90, np.int64)
    ranks[shuffled] = np.arange(90)

    plain = duplicates.near(signed(texts), np.arange(90), 0.8)
    moved = duplicates.near(signed([texts[n] for n in shuffled]), ranks, 0.8)

    assert {tuple(sorted(pair)) for pair in plain.tolist()} == {
        tuple(sorted((shuffled[a], shuffled[b]))) for a, b in moved.tolist()
    }


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 0.95, 1.0])
def test_a_band_lets_few_pairs_at_the_threshold_through(threshold):
    rows = duplicates.band_rows(128, threshold)

    assert (1 - threshold**rows) ** (128 // rows) <= 0.01


def test_what_an_evaluation_nearly_asks_is_found():
    texts = sentences(20)

    found = duplicates.across(signed([texts[3] + " so"]), signed(texts), 0.85)

    assert found.tolist() == [3]


def test_of_a_cluster_the_best_ranked_comes_first():
    pairs = np.array([[0, 1], [1, 2]])

    labels = duplicates.clusters(pairs, 4)

    assert duplicates.firsts(labels, np.array([2, 3, 0, 1])).tolist() == [2, 2, 2, 3]


def test_without_pairs_each_row_is_its_own_cluster():
    labels = duplicates.clusters(np.empty((0, 2), np.int64), 3)

    assert duplicates.firsts(labels, np.arange(3)).tolist() == [0, 1, 2]


def test_those_beyond_a_cap_are_the_ones_with_the_largest_ids():
    keys = np.array([7, 7, 7, 9, 0, 0, 0], np.uint64)
    ids = np.array([3, 1, 2, 5, 1, 2, 3], np.uint64)

    over = balance.over(keys, ids, 2)

    assert over.tolist() == [True, False, False, False, False, False, False]


def test_groups_that_share_a_text_are_linked_and_so_on():
    groups = np.array([1, 1, 2, 2, 3], np.uint64)
    pairs = np.array([[1, 2]])

    labels = sides.linked(groups, pairs)

    assert len({int(label) for label in labels[:4]}) == 1
    assert labels[4] != labels[0]


def test_a_text_that_everybody_says_links_nobody():
    groups = np.arange(sides.LINKS + 1, dtype=np.uint64)
    pairs = np.array([[0, n] for n in range(1, sides.LINKS + 1)])

    labels = sides.linked(groups, pairs)

    assert len(set(labels.tolist())) == len(groups)


def test_forms_that_were_filled_in_otherwise_have_one_template():
    first = 'Book a table for 2 in Oslo under "Ann Lee", please'
    second = 'Book a table for 17 in San Francisco under "Bo", please'

    assert template(first) == template(second) != template("Book a room for 2 in Oslo")
