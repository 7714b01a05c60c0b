import math

import pytest

from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.page.words import count, roughly, span, told


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.934, "share", "93.4 %"),
        (0.012, "points", "+1.2 pt"),
        (-0.012, "points", "-1.2 pt"),
        (0.34, "seconds", "340 ms"),
        (2.5, "seconds", "2.50 s"),
        (-3.0, "dollars", "-$3.00"),
        (0.0042, "dollars", "$0.0042"),
        (math.nan, "share", "–"),
        (math.inf, "dollars", "–"),
    ],
)
def test_figures_are_told_with_their_unit(value, unit, text):
    assert told(value, unit) == text


def test_an_interval_that_is_none_is_not_told():
    assert span(Interval(0.1, 0.25), "share") == "[10.0 %, 25.0 %]"
    assert span(Interval(math.nan, math.nan), "share") == ""


def test_large_numbers_have_thin_spaces_and_estimates_two_digits():
    assert count(1234567) == "1\u202f234\u202f567"
    assert roughly(1287) == "about 1\u202f300"
    assert roughly(7) == "about 7"
