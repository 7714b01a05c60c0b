from math import inf

import numpy as np
import pytest

from proxy.protocol.evidence.paired import non_inferior
from proxy.protocol.evidence.power import pairs_needed, smallest_difference, times_needed


@pytest.mark.parametrize(
    ("discordance", "margin", "n"), [(0.10, 0.03, 687), (0.15, 0.02, 2319), (0.20, 0.05, 495)]
)
def test_pairs_needed_are_those_of_the_formula(discordance, margin, n):
    # n = (1.6449 + 0.8416)² · discordance / margin².
    assert pairs_needed(discordance, margin) == n


def test_so_many_pairs_do_show_it_in_eight_of_ten_runs():
    n = int(pairs_needed(0.1, 0.05))
    random = np.random.default_rng(0)

    drawn = random.multinomial(n, [0.05, 0.05, 0.9], size=400)
    shown = [bool(non_inferior(a, b, n, 0.05)) for a, b, _ in drawn]

    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)


def test_what_is_worse_by_the_margin_is_never_shown_to_be_within_it():
    assert pairs_needed(0.2, margin=0.03, difference=-0.03) == inf


def test_a_hundred_pairs_show_large_differences_only():
    assert smallest_difference(100) == pytest.approx(0.12, abs=0.005)
    assert smallest_difference(1000) == pytest.approx(0.04, abs=0.005)
    assert smallest_difference(0) == 1.0


def test_times_needed_finds_the_least_that_decides():
    assert times_needed(lambda times: times >= 7) == pytest.approx(7, rel=0.03)
    assert times_needed(lambda times: True) == 1.0
    assert times_needed(lambda times: False) == inf
