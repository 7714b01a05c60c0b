from __future__ import annotations

import base64

import pytest

from proxy.dashboard.session import Seal, Tries

SECRET = b"a secret of sixteen or more"
KEY = b"d" * 32


class Clock:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_session_names_its_key_without_holding_it():
    seal = Seal(SECRET)

    session = seal.opened(seal.begin(KEY, hours=1))

    assert session is not None and session.key == seal.name(KEY)
    assert KEY not in base64.urlsafe_b64decode(seal.begin(KEY, 1).partition(".")[0] + "==")
    assert KEY.hex() != session.key


def test_session_ends():
    clock = Clock()
    seal = Seal(SECRET, clock)
    cookie = seal.begin(KEY, hours=1)

    clock.at += 60 * 60 - 1
    assert seal.opened(cookie) is not None
    clock.at += 1
    assert seal.opened(cookie) is None


def test_two_sessions_of_a_key_differ():
    seal = Seal(SECRET)

    assert seal.begin(KEY, 1) != seal.begin(KEY, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cookie: "",
        lambda cookie: "no cookie of ours",
        lambda cookie: cookie.partition(".")[0],
        lambda cookie: cookie.partition(".")[0] + ".",
        lambda cookie: cookie.partition(".")[0] + "." + cookie.partition(".")[2][:-4],
        lambda cookie: "e30." + cookie.partition(".")[2],
        lambda cookie: "." + cookie,
        lambda cookie: "ü" + cookie,
        lambda cookie: Seal(b"another secret, of others").begin(KEY, 1),
    ],
)
def test_cookie_that_we_did_not_sign_is_none(spoil):
    seal = Seal(SECRET)

    assert seal.opened(spoil(seal.begin(KEY, 1))) is None


def test_token_belongs_to_one_visitor():
    seal = Seal(SECRET)

    assert seal.is_token(seal.token("session a"), "session a")
    assert not seal.is_token(seal.token("session a"), "session b")
    assert not seal.is_token("", "session a")
    assert not seal.is_token("ü", "session a")


def test_token_is_no_session():
    """What signs one thing signs no other."""
    seal = Seal(SECRET)
    content = seal.begin(KEY, 1).partition(".")[0]

    assert seal.opened(f"{content}.{seal.token(content)}") is None


def test_tries_are_counted_by_address_and_forgotten():
    clock = Clock()
    tries = Tries(clock)
    for _ in range(10):
        assert tries.may("a")
        tries.was_wrong("a")

    assert not tries.may("a")
    assert tries.may("b")
    clock.at += 61
    assert tries.may("a")


def test_many_addresses_share_a_limit():
    tries = Tries(Clock())
    for number in range(100):
        assert tries.may(f"{number}")
        tries.was_wrong(f"{number}")

    assert not tries.may("another")
