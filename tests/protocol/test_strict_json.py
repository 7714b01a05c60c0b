from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.strict_json import NotStrict, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_what_is_json_is_read_as_python_reads_it(value: object):
    assert loads(json.dumps(value).encode()) == value


@given(VALUES)
def test_what_is_written_without_spaces_is_read_no_otherwise(value: object):
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    assert loads(body) == value
    assert loads(b" " + body) == value


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"a":1,"a":1}', "$.a"),
        (b'{"a":[{"b":1},{"c":{"d":1,"d":[]}}]}', "$.a[1].c.d"),
        (b'{"a":1,"\\u0061":2}', "$.a"),
    ],
)
def test_repeated_key_is_told_with_its_place(body: bytes, path: str):
    with pytest.raises(NotStrict) as caught:
        loads(body)

    assert caught.value.path == path


def test_no_more_of_a_place_is_told_than_helps():
    key = b"k" * 10_000

    with pytest.raises(NotStrict) as caught:
        loads(b'{"%b":1,"%b":2}' % (key, key))

    assert len(str(caught.value)) < 1000 and len(caught.value.path or "") < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'"\x00"',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"9" * 5_000,
        "{}".encode("utf-16"),
    ],
)
def test_what_readers_differ_on_is_refused_without_quoting_it(body: bytes):
    with pytest.raises(NotStrict) as caught:
        loads(body)

    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("rest", ["}", "{", "[" * 5000, "1" * 5000, ""])
def test_what_follows_a_repeated_key_may_be_no_json(rest: str):
    with pytest.raises(NotStrict):
        loads(f'{{"x":{{"a":1,"a":2}},"b":{rest}'.encode())


def test_pair_of_surrogates_is_a_character():
    assert loads(b'"\\ud83d\\ude00\\\\ud800"') == "😀\\ud800"


def test_fast_reader_would_not_have_seen_it():
    assert msgspec.json.decode(b'{"a":1,"a":2}') == {"a": 2}
