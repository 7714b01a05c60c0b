import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.equality import decoded, leaves, normal, same

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("given", "reference"),
    [
        ("1", "1.0"),
        ('{"a":1,"b":[2,{}]}', '{"b":[2.0,{}],"a":1e0}'),
        ("-0", "0"),
    ],
)
def test_values_are_the_same_whatever_their_form(given, reference):
    assert same(msgspec.json.decode(given), msgspec.json.decode(reference))


@pytest.mark.parametrize(
    ("given", "reference"),
    [
        ("1", "true"),
        ("0", "false"),
        ('"1"', "1"),
        ("null", "false"),
        ("[]", "{}"),
        ("[1,2]", "[2,1]"),
        ('{"a":1}', '{"a":1,"b":null}'),
        ('[["k",1]]', '{"k":1}'),
        ('"New York"', '"new york"'),
    ],
)
def test_values_of_other_types_or_contents_are_not_the_same(given, reference):
    assert not same(msgspec.json.decode(given), msgspec.json.decode(reference))


def test_lenient_strings_have_no_case_no_spaces_and_one_kind_of_quotes():
    assert same("New-York, 'NY'", 'new york/"ny"', "bfcl")
    assert not same("New York", "New Work", "bfcl")


def test_keys_are_compared_as_they_are_written_also_when_strings_are_not():
    assert not same({"A": 1}, {"a": 1}, "bfcl")


@given(json_values)
def test_what_is_written_and_read_again_is_the_same(value):
    again = msgspec.json.decode(msgspec.json.encode(value))

    assert same(value, again)
    assert leaves(value) == leaves(again)


def test_leaves_are_values_without_parts_by_path():
    found = leaves({"a": {"b": [1, "x"]}, "c": []})

    assert found == {
        ("a", "b", 0): normal(1),
        ("a", "b", 1): normal("x"),
        ("c",): normal([]),
    }


def test_a_call_without_arguments_has_no_leaves():
    assert leaves({}) == {}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nan"])
def test_arguments_that_are_no_json_stand_for_themselves(text):
    assert decoded(text) == text


def test_missing_arguments_are_no_arguments():
    assert decoded("") == {}
