from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from proxy.auth import ANONYMOUS, Authenticator, Caller, KeyWatch, is_loopback
from proxy.errors import Forbidden, Unauthenticated, UnknownModel
from proxy.keys.base import Key, KeysUnavailable, a_new_key, new
from proxy.keys.file import FileKeys

KEY = "0123456789abcdef"
AUTH = Authenticator([Key(key=KEY, tenant="acme", name="shop"), Key(key=KEY[::-1])])


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


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


def test_no_keys_yet_is_not_no_keys_needed():
    with pytest.raises(Unauthenticated):
        Authenticator([], is_open=False).authenticate(bearer(KEY))


def test_hash_of_a_key_lets_it_in():
    secret, kept = new(msgspec.structs.replace(a_new_key(), tenant="acme"))

    assert Authenticator([kept]).authenticate(bearer(secret)).tenant == "acme"
    assert secret not in repr(kept)


def test_key_stops_working_when_it_says_so():
    end = datetime(2027, 1, 1, tzinfo=UTC)
    now = [end.timestamp() - 1]
    auth = Authenticator([Key(key=KEY, expires=end)], now=lambda: now[0])
    assert auth.authenticate(bearer(KEY)).tenant == "default"

    now[0] = end.timestamp()

    with pytest.raises(Unauthenticated, match="expired"):
        auth.authenticate(bearer(KEY))


def test_holder_of_a_digest_is_known_for_as_long_as_the_key_works():
    end = datetime(2026, 1, 1, tzinfo=UTC)
    now = [end.timestamp() - 1]
    key = Key(key=KEY, name="ann", expires=end)
    auth = Authenticator([key], now=lambda: now[0])

    held = auth.holder(lambda digest: digest == key.digest)
    nobody = auth.holder(lambda digest: False)
    now[0] += 1

    assert held is not None and held.name == "ann"
    assert nobody is None
    assert auth.holder(lambda digest: digest == key.digest) is None


def test_scopes_are_the_key_s():
    auth = Authenticator([Key(key=KEY, domains=["a"], models=["m"], admin=True)])

    caller = auth.authenticate(bearer(KEY))

    assert (caller.domains, caller.models, caller.is_admin) == ({"a"}, {"m"}, True)
    caller.check_domain("a")
    caller.check_model("m")
    with pytest.raises(Forbidden):
        caller.check_domain("b")
    with pytest.raises(UnknownModel, match="this key may use: m"):
        caller.check_model("gpt-4o")


def test_account_is_for_the_tenants_that_are_named():
    keys = [Key(key=KEY, tenant="a"), Key(key=KEY[::-1], tenant="b")]
    auth = Authenticator(keys, account_tenants=["b"])

    assert not auth.authenticate(bearer(KEY)).has_account
    assert auth.authenticate(bearer(KEY[::-1])).has_account


# ---------------------------------------------------------------- keys that come and go


@pytest.fixture
def file(tmp_path: Path) -> FileKeys:
    return FileKeys(tmp_path / "keys.json")


async def test_new_and_revoked_keys_are_known_without_a_restart(file: FileKeys):
    first, kept = new(a_new_key())
    file.add(kept)
    auth = Authenticator([], is_open=False)
    watch = KeyWatch(auth, [Key(key=KEY)], file, 5)
    await watch.refresh()
    assert auth.authenticate(bearer(first)) and auth.authenticate(bearer(KEY))

    second, other = new(a_new_key())
    file.add(other)
    file.expire(kept.prefix, datetime.now(UTC))
    await watch.refresh()

    assert auth.authenticate(bearer(second))
    with pytest.raises(Unauthenticated):
        auth.authenticate(bearer(first))


async def test_keys_stay_while_they_cannot_be_read(file: FileKeys, tmp_path: Path):
    secret, kept = new(a_new_key())
    file.add(kept)
    auth = Authenticator([], is_open=False)
    watch = KeyWatch(auth, [], file, 0.01)
    await watch.refresh()
    (tmp_path / "keys.json").write_text("{")

    with pytest.raises(KeysUnavailable):
        await watch.refresh()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await watch.run()

    assert auth.authenticate(bearer(secret))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_addresses_are_known(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_addresses_are_no_loopback(host):
    assert not is_loopback(host)
