"""Each place that keeps keys, by the same tests."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.keys.base import KeyStore, KeysUnavailable, a_new_key, new
from proxy.keys.file import FileKeys
from proxy.keys.sql import SqlKeys

NOW = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
STORES: dict[str, Callable[[Path], KeyStore]] = {
    "file": lambda path: FileKeys(path / "keys.json"),
    "sql": lambda path: SqlKeys(f"sqlite:///{path / 'keys.db'}"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    return STORES[request.param](tmp_path)


def made(**fields):
    from msgspec.structs import replace

    return new(replace(a_new_key(), **fields))


def test_keys_come_back_as_they_were_given(store: KeyStore):
    _, key = made(tenant="acme", name="shop", domains=["a"], models=["m"], expires=NOW, admin=True)

    store.add(key)

    assert store.read() == [key]


def test_secret_is_nowhere_in_what_is_kept(store: KeyStore, tmp_path: Path):
    secret, key = made()

    store.add(key)

    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert key.prefix.encode() in kept
    assert secret.encode() not in kept


def test_expired_key_stays_and_says_when(store: KeyStore):
    _, first = made(name="first")
    _, other = made(name="other")
    store.add(first)
    store.add(other)

    store.expire(first.prefix, NOW)

    assert {key.name: key.expires for key in store.read()} == {"first": NOW, "other": None}


def test_end_is_never_put_off(store: KeyStore):
    _, key = made(expires=NOW)
    store.add(key)

    assert store.expire(key.prefix, NOW + timedelta(days=1)).expires == NOW
    assert store.read()[0].expires == NOW


@pytest.mark.parametrize("prefix", ["sk-headrace-", "sk-nobody", ""])
def test_prefix_must_name_exactly_one(store: KeyStore, prefix: str):
    store.add(made()[1])
    store.add(made()[1])

    with pytest.raises(KeysUnavailable, match="headrace keys ls"):
        store.expire(prefix, NOW)

    assert [key.expires for key in store.read()] == [None, None]


def test_changes_at_the_same_time_all_count(store: KeyStore):
    keys = [made(name=str(number))[1] for number in range(12)]

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(store.add, keys))

    assert {key.name for key in store.read()} == {key.name for key in keys}


def test_file_is_its_owner_s_alone(tmp_path: Path):
    FileKeys(tmp_path / "keys.json").add(made()[1])

    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "headrace keys new"), ("{", "no file of keys"), ('{"kees": []}', "kees")],
)
def test_file_that_is_none_is_told(tmp_path: Path, content: str | None, why: str):
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(KeysUnavailable, match=f"{path}: .*{why}"):
        FileKeys(path).read()


def test_database_error_tells_nothing_of_its_password():
    store = SqlKeys("sqlite:////nowhere/secret-path/keys.db")

    with pytest.raises(KeysUnavailable, match="OperationalError") as caught:
        store.read()

    assert "secret-path" not in str(caught.value)


def test_unknown_kind_of_database_is_told():
    with pytest.raises(KeysUnavailable, match=r"\$\.auth\.database"):
        SqlKeys("nonsense://x")
