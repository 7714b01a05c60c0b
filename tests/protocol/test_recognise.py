"""Each kind is found in its usual forms, and what only looks like it is left alone."""

from __future__ import annotations

import pytest

from proxy.protocol.recognise import HINTS, PERSONAL, SECRETS, Hints, has_one, known

KINDS = {**PERSONAL, **SECRETS}


def found(kind: str, text: str) -> list[str]:
    values: list[str] = []

    def name(value: str) -> str:
        values.append(value)
        return "#"

    KINDS[kind](text, name)
    return values


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("email", "alice.b+x@mail.example.co.uk"),
        ("email", "ALICE@EXAMPLE.COM"),
        ("card", "4111111111111111"),
        ("card", "4111 1111 1111 1111"),
        ("card", "5555-5555-5555-4444"),
        ("card", "3782 822463 10005"),
        ("card", "6011.1111.1111.1117"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "GB82WEST12345698765432"),
        ("iban", "BE68 5390 0754 7034"),
        ("phone", "+49 30 1234567"),
        ("phone", "0049 30 1234567"),
        ("phone", "(555) 123-4567"),
        ("phone", "06 12 34 56 78"),
        ("phone", "030/12345678"),
        ("national_id", "123-45-6789"),
        ("national_id", "AB 12 34 56 C"),
        ("national_id", "12345678Z"),
        ("national_id", "X1234567L"),
        ("national_id", "86095742719"),
        ("national_id", "RSSMRA85T10A562S"),
        ("secret", "sk-proj-abcdefghijklmnop"),
        ("secret", "AKIAIOSFODNN7EXAMPLE"),
        ("secret", "ghp_" + "a1B2" * 9),
        ("secret", "xoxb-123456789012-abcdef"),
        ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
        ("secret", "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"),
        ("secret", "-----BEGIN EC PRIVATE KEY-----\ncut short"),
    ],
)
def test_found_alone_and_amid_a_text(kind: str, value: str):
    assert found(kind, value) == [value]
    assert found(kind, f"it is {value}, I think") == [value] or value.endswith("short")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("password=hunter2hunter2", "hunter2hunter2"),
        ('"api_key": "0123456789abcdef"', "0123456789abcdef"),
        ("postgres://app:pw1@db/x", "pw1"),
        ("BEARER abcdef123456", "abcdef123456"),
        ("pa\u017f\u017fword=hunter2hunter2", "hunter2hunter2"),
        ("auth_to\u212aen=hunter2hunter2", "hunter2hunter2"),
        ("bas\u0131c abcdef123456", "abcdef123456"),
        ("BAS\u0130C abcdef123456", "abcdef123456"),
    ],
)
def test_secret_is_found_by_what_stands_before_it(text: str, value: str):
    assert found("secret", text) == [value]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "me @ home, a@b"),
        ("card", "4111 1111 1111 1112"),
        ("card", "1700000000000"),
        ("card", "123e4567-e89b-12d3-a456-426614174000"),
        ("iban", "DE88 3704 0044 0532 0130 00"),
        ("iban", "XX89 3704 0044 0532 0130 00"),
        ("phone", "2025-03-07 10:20:30"),
        ("phone", "10.0.0.1 and 3.14159265358979"),
        ("phone", "Buses_3_FindBus on 07/03/2025"),
        ("national_id", "000-12-3456 and 12345678A"),
        ("national_id", "86095742718"),
        ("secret", "the basic understanding of secrets, a task-force-of-many"),
        ("secret", "password: <secret:0a1b2c3d>"),
    ],
)
def test_left_alone(kind: str, text: str):
    assert found(kind, text) == []


def test_card_is_found_between_other_numbers():
    assert found("card", "5 4111 1111 1111 1111 12 25") == ["4111 1111 1111 1111"]


def test_iban_ends_where_its_country_says():
    assert found("iban", "BE68 5390 0754 7034 THIS") == ["BE68 5390 0754 7034"]


def test_secret_that_we_know_is_found_whatever_it_looks_like():
    values: list[str] = []

    known(["plain words", "plain"])("in plain words: plain", lambda v: values.append(v) or "#")

    assert values == ["plain words", "plain"]


@pytest.mark.parametrize("hint", HINTS)
def test_each_hint_is_seen_though_not_each_is_looked_for(hint: str):
    assert has_one(f"so: {hint.upper()}.", Hints.of(HINTS))


def test_text_without_hints_has_none():
    assert not has_one("Nothing_here is worth being kept to oneself.", Hints.of(HINTS))
