"""One content, one spelling."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.canonical import canonical

number = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
value = st.recursive(
    st.none() | st.booleans() | number | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def shuffled(value: object) -> object:
    """The same value, keys the other way round."""
    match value:
        case dict():
            return {key: shuffled(value[key]) for key in reversed(value)}
        case list():
            return [shuffled(inner) for inner in value]
        case _:
            return value


@given(value)
def test_spelling_does_not_matter(value):
    one, other = json.dumps(value), json.dumps(shuffled(value), indent=2, ensure_ascii=False)

    assert canonical(one) == canonical(other)


@given(value)
def test_what_is_canonical_stays_and_says_the_same(value):
    text = canonical(json.dumps(value))

    assert canonical(text) == text
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ('{"b": 1.0, "a": [1e2, -0.0]}', '{"a":[100,0],"b":1}'),
        ('{"a": 0.1, "b": 12345678901234567890}', '{"a":0.1,"b":12345678901234567890}'),
        ('"é"', '"é"'),
        ("{'a': 1}", "{'a': 1}"),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ('{"a": 1e999}', '{"a": 1e999}'),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_numbers_have_one_form_and_what_is_no_json_stays(given, text):
    assert canonical(given) == text
