import pytest

from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.unpaired import difference, fisher


# Newcombe 1998 (interval estimation for the difference between independent proportions), table II,
# method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_interval_is_as_published(first, second, low, high):
    found = difference(first, second)

    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_fishers_test_is_as_published():
    # The lady tasting tea: 3 of 4, and 1 of 4.
    assert fisher((3, 4), (1, 4)) == pytest.approx(0.4857, abs=5e-5)


def test_a_group_without_observations_shows_nothing():
    assert difference((0, 0), (5, 10)) == Interval(-1, 1)
    assert fisher((0, 0), (5, 10)) == 1.0
