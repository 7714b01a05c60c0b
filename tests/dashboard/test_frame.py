from __future__ import annotations

import json

import pytest

from proxy.dashboard import frame
from proxy.dashboard.frame import Frame
from tests.dashboard.visiting import HOSTILE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 漢 🙂", "plain ü 漢 🙂"),
        ("two\n\tlines", "two\n\tlines"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
    ],
)
def test_letters_that_nobody_sees_are_named(text: str, expected: str):
    assert frame.shown(text) == expected


def test_draft_of_a_correction_is_the_same_and_can_be_seen():
    text = '{"a": "x\u202ey\U000e0001"}'

    assert frame.escaped(text) == '{"a": "x\\u202ey\\udb40\\udc01"}'
    assert json.loads(frame.escaped(text)) == json.loads(text)


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
