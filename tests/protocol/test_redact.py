"""What must not be kept is gone, wherever it stood, and everything else is as it was."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.redact import Redactor, own_key

KEY = b"k" * 32
REDACTOR = Redactor(KEY)
SECRET = "sk-proj-abcdefghijklmnop"
EMAIL = "alice@example.com"
CARD = "4111 1111 1111 1111"

texts = st.text() | st.sampled_from(
    [SECRET, EMAIL, CARD, "+49 30 1234567", "password: hunter2hunter2", '{"a":"alice@x.org"}']
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(value=values)
def test_redaction_is_idempotent(value: object):
    once = REDACTOR.redact(value, "c")

    assert REDACTOR.redact(once, "c") == once


@given(value=values, before=st.text(alphabet=" .,;\n"), after=st.text(alphabet=" ,;\n"))
def test_what_is_planted_anywhere_is_gone(value: object, before: str, after: str):
    planted = f"{before}{EMAIL}{after}"
    inner = msgspec.json.encode({"to": planted, planted: 1}).decode()

    found = msgspec.json.encode(REDACTOR.redact([value, {planted: [planted]}, inner], "c"))

    assert b"alice@example" not in found


@pytest.mark.parametrize(
    "value",
    [
        "Find the least common multiple of 18 and 12 on 2025-03-07 at 10:20.",
        {"a": [1, 2.5, None, True, 1700000000000], "b": {"type": "string"}},
        '{"a": 1,  "b": [2]}',
        {"password": {"type": "string", "description": "the user's"}},
        "data:image/png;base64,alice@example.com",
    ],
)
def test_what_may_be_kept_stays_as_it_was(value: object):
    assert REDACTOR.redact(value, "c") == value


def test_arguments_are_json_within_json():
    arguments = '{"to":"alice\\u0040example.com","card":4111111111111111}'

    found = msgspec.json.decode(REDACTOR.redact(arguments, "c"))

    assert found["to"].startswith("<email:")
    assert found["card"].startswith("<card:")


@pytest.mark.parametrize(
    "twice",
    [
        '{"to":"alice@example.com","to":"x"}',
        '{"to":"alice@example.com","to":"\\u003A"}',
        '{"to":"alice\\u0040example.com","to":"x"}',
    ],
)
def test_a_field_that_occurs_twice_hides_nothing(twice: str):
    inside = msgspec.json.encode([twice])

    assert b"example" not in REDACTOR.redact_json(twice.encode(), "c")
    assert b"example" not in REDACTOR.redact_json(inside, "c")


@given(said=values, tools=values, is_ascii=st.booleans())
def test_a_document_is_redacted_as_what_it_says(said: object, tools: object, is_ascii: bool):
    document = {"messages": said, "tools": [tools], "nested": json.dumps(said)}
    content = json.dumps(document, ensure_ascii=is_ascii).encode("utf-8", "backslashreplace")

    found = REDACTOR.redact_json(content, "c")

    assert msgspec.json.decode(found) == REDACTOR.redact(msgspec.json.decode(content), "c")


@given(spaces=st.lists(st.sampled_from(["\n", '"', " ", "\\"]), min_size=5, max_size=5))
def test_no_escape_hides_a_number_in_a_document(spaces: list[str]):
    number = "+4930" + "".join(map("".join, zip("12345", spaces, strict=True)))
    nested = json.dumps({"call": json.dumps({"inner": json.dumps({"number": number})})})

    found = REDACTOR.redact_json(nested.encode(), "c")

    assert msgspec.json.decode(found) == REDACTOR.redact(msgspec.json.decode(nested), "c")


@pytest.mark.parametrize("secret", ['quoted "key" 99', "slash/back\\slash", "päßword-of-ours"])
def test_our_own_keys_are_taken_out_of_documents_however_they_are_escaped(secret: str):
    redactor = Redactor(KEY, personal=[], known_secrets=[secret])

    found = redactor.redact_json(json.dumps({"a": f"it is {secret}!"}).encode(), "c")

    assert msgspec.json.decode(found)["a"].startswith("it is <secret:")


def test_clean_tools_stay_as_they_came_beside_what_is_taken_out():
    tools = b'[{"type":  "function", "function": {"name": "mail"}}]'
    content = b'{"tools": ' + tools + b', "to": "alice@example.com"}'

    found = REDACTOR.redact_json(content, "c")

    assert tools in found
    assert b"alice" not in found


@pytest.mark.parametrize("field", ["password", "Api-Key", "x-api-key", "authorization"])
def test_field_that_is_a_secret_by_its_name(field: str):
    assert REDACTOR.redact({field: "short"}, "c")[field].startswith("<secret:")


def test_same_value_has_the_same_name_however_it_is_written():
    one, other = REDACTOR.redact(["4111-1111-1111-1111", "ALICE@example.com"], "c")

    assert REDACTOR.redact([CARD, EMAIL], "c") == [one, other]


def test_another_conversation_or_key_gives_another_name():
    name = REDACTOR.redact(EMAIL, "c")

    assert REDACTOR.redact(EMAIL, "d") != name
    assert Redactor(b"x" * 32).redact(EMAIL, "c") != name


def test_only_the_kinds_that_were_named_are_taken_out():
    redactor = Redactor(KEY, personal=["card"])

    card, email, secret = redactor.redact([CARD, EMAIL, SECRET], "c")

    assert card.startswith("<card:")
    assert email == EMAIL
    assert secret.startswith("<secret:")


def test_our_own_keys_are_taken_out_whatever_they_look_like():
    redactor = Redactor(KEY, personal=[], known_secrets=["our own key, really"])

    assert "our own" not in redactor.redact("it is: our own key, really!", "c")


def test_own_key_is_made_once_and_for_its_owner_only(tmp_path):
    first = own_key(tmp_path / "record")

    assert own_key(tmp_path / "record") == first
    assert len(first) == 32
    (path,) = (tmp_path / "record").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
