from __future__ import annotations

import pytest

from proxy.auth import ANONYMOUS, Authenticator, Caller, Key, is_loopback
from proxy.errors import Unauthenticated

KEY = "0123456789abcdef"
AUTH = Authenticator([Key(key=KEY, tenant="acme", name="shop"), Key(key=KEY[::-1])])


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer " + KEY.encode()},
        {b"authorization": b"bearer  " + KEY.encode()},
        {b"api-key": KEY.encode()},
        {b"authorization": b"Basic abc", b"api-key": KEY.encode()},
    ],
)
def test_key_names_its_caller(headers):
    assert AUTH.authenticate(headers) == Caller("acme", "shop")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer nonsense"},
        {b"authorization": KEY.encode()},
        {b"api-key": KEY.encode()[:-1]},
        {b"api-key": b"\xff\x00"},
    ],
)
def test_anything_else_is_refused(headers):
    with pytest.raises(Unauthenticated):
        AUTH.authenticate(headers)


def test_without_keys_everybody_is_let_in():
    assert Authenticator([]).authenticate({b"authorization": b"Bearer x"}) == ANONYMOUS


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_addresses_are_known(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_addresses_are_no_loopback(host):
    assert not is_loopback(host)
