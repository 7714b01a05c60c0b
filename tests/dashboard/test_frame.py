from __future__ import annotations

import pytest

from proxy.dashboard import frame
from proxy.dashboard.frame import Frame
from tests.dashboard.visiting import HOSTILE


def test_templates_escape_what_they_are_given():
    page = Frame({}).part("savings.html.jinja", refusal={"told": HOSTILE}, found=None).decode()

    assert "<script>" not in page and "<img" not in page and "<svg" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (frame.count(1234567), "1\u202f234\u202f567"),
        (frame.figure(12345), "12\u202f345"),
        (frame.figure(12345.678), "12\u202f346"),
        (frame.figure(0.123456), "0.1235"),
        (frame.figure(9), "9"),
        (frame.rate(0.0), "0.0"),
        (frame.rate(0.004), "0.004"),
        (frame.rate(12.34), "12.3"),
        (frame.share(None), "–"),
        (frame.share(0.5), "50.0 %"),
        (frame.seconds(None), "–"),
        (frame.seconds(0.25), "250 ms"),
        (frame.seconds(2.5), "2.50 s"),
        (frame.dollars(-1.5), "-$1.50"),
        (frame.dollars(0.012), "$0.0120"),
        (frame.moment(0), "1970-01-01 00:00:00"),
    ],
)
def test_values_are_told_as_people_read_them(told: str, expected: str):
    assert told == expected
