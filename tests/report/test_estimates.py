import pytest

from proxy.protocol.evidence import intervals, paired, sequential
from proxy.report.estimates import Observed, difference, mean, quantile, share

ALONE = [f"{number}" for number in range(20)]
HITS = Observed([1.0] * 15 + [0.0] * 5, ALONE)


def test_a_share_has_wilsons_interval_and_one_for_every_look():
    found = share("agreement", HITS)

    assert (found.value, found.n, found.worth, found.bound) == (0.75, 20, 20, None)
    assert found.interval == intervals.wilson(15, 20)
    assert found.always == sequential.interval(sequential.share(15, 20))


def test_what_is_unwanted_has_an_upper_bound():
    assert share("false calls", HITS, unwanted=True).bound == intervals.upper(15, 20)


def test_a_difference_has_tangos_interval():
    found = difference("difference", Observed([1.0] * 4 + [-1.0] * 2 + [0.0] * 14, ALONE))

    assert found.value == pytest.approx(0.1)
    assert found.interval == paired.difference(4, 2, 20)
    assert found.always == sequential.interval(sequential.pairs(4, 2, 20))


def test_at_every_look_a_conversation_counts_once():
    alike = Observed([1.0] * 15 + [0.0] * 5, ["one"] * 15 + ALONE[15:])

    found = share("agreement", alike)

    assert found.value == 0.75
    assert found.always == sequential.interval(sequential.share(1, 6))


def test_a_quantile_is_a_value_that_was_seen():
    found = quantile("median", Observed([0.1, 0.2, 0.9, 1.0], ALONE[:4]), 0.5)

    assert (found.value, found.unit) == (0.2, "seconds")
    assert found.interval is not None and found.interval.low <= 0.2 <= found.interval.high


def test_a_mean_may_be_of_more_than_was_seen():
    found = mean("1,000 requests", Observed([0.001, 0.003], ALONE[:2]), times=1000)

    assert found.value == pytest.approx(2.0)


def test_nothing_seen_is_no_figure():
    nothing = Observed([], [])

    for found in (share("", nothing), difference("", nothing), quantile("", nothing, 0.5)):
        assert (found.value, found.n, found.interval, found.always) == (None, 0, None, None)
