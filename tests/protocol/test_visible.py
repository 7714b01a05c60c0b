"""What people are shown of text that may hold anything."""

from __future__ import annotations

import json

import pytest

from proxy.protocol import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 漢 🙂 1\u202f000", "plain ü 漢 🙂 1\u202f000"),
        ("two\n\tlines", "two\n\tlines"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\x9b31m\x7f", "⟨U+009B⟩31m⟨U+007F⟩"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
    ],
)
def test_letters_that_nobody_sees_are_named(text: str, expected: str):
    assert visible.shown(text) == expected


def test_text_makes_no_second_line_of_a_table():
    assert visible.on_one_line("a\n\tb\r") == "a⟨U+000A⟩⟨U+0009⟩b⟨U+000D⟩"


def test_json_is_the_same_and_can_be_seen():
    text = '{"a": "x\u202ey\U000e0001\x9b\x7f"}'

    assert visible.escaped(text) == '{"a": "x\\u202ey\\udb40\\udc01\\u009b\\u007f"}'
    assert json.loads(visible.escaped(text)) == json.loads(text)
