from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from proxy.__main__ import main
from proxy.auth import Authenticator
from proxy.config import load
from proxy.keys.file import FileKeys

TEXT = """
version: 1
models: [gpt-4o]
backends: {cloud: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}
domains: {all: {plan: [cloud]}}
defaults: {tools: all, chat: all}
"""


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(TEXT + "auth: {file: keys.json}\n")
    return path


def keys(routes: Path, *arguments: str) -> int:
    return main(["keys", arguments[0], "--config", str(routes), *arguments[1:]])


def secret(out: str) -> str:
    return re.match(r"sk-headrace-[\w-]{43}", out)[0]


def lets_in(routes: Path, key: str) -> bool:
    auth = Authenticator(FileKeys(routes.parent / "keys.json").read(), is_open=False)
    try:
        return bool(auth.authenticate({b"api-key": key.encode()}))
    except Exception:
        return False


def test_new_key_works_and_is_listed_without_its_secret(routes, capsys):
    assert keys(routes, "new", "--tenant", "acme", "--name", "shop", "--domain", "all") == 0
    key = secret(capsys.readouterr().out)

    assert keys(routes, "ls") == 0
    listed = capsys.readouterr().out

    assert lets_in(routes, key)
    assert key not in listed
    assert re.search(rf"{key[:20]}  acme +shop +all +never +works", listed)


def test_revoked_key_works_no_more_and_stays_listed(routes, capsys):
    keys(routes, "new")
    key = secret(capsys.readouterr().out)

    assert keys(routes, "revoke", key[:20], "--json") == 0

    gone = msgspec.json.decode(capsys.readouterr().out)
    assert gone == {"prefix": key[:20], "tenant": "default", "name": "default"}
    assert not lets_in(routes, key)
    keys(routes, "ls")
    assert "over" in capsys.readouterr().out


def test_rotated_key_overlaps_with_the_old_one(routes, capsys):
    keys(routes, "new", "--tenant", "acme", "--admin")
    old = secret(capsys.readouterr().out)

    keys(routes, "new", "--replaces", old[:20], "--overlap-hours", "1", "--json")
    made = msgspec.json.decode(capsys.readouterr().out)

    assert lets_in(routes, old) and lets_in(routes, made["key"])
    assert (made["entry"]["tenant"], made["entry"]["admin"]) == ("acme", True)
    first, second = FileKeys(routes.parent / "keys.json").read()
    assert first.expires is not None and second.expires is None


def test_wrong_prefix_makes_no_key(routes, capsys):
    keys(routes, "new")

    assert keys(routes, "new", "--replaces", "sk-nobody") == 1

    assert len(FileKeys(routes.parent / "keys.json").read()) == 1


def test_without_a_place_the_entry_is_for_routes_yaml(tmp_path, capsys):
    path = tmp_path / "routes.yaml"
    path.write_text(TEXT)
    assert keys(path, "new", "--tenant", "acme", "--days", "30") == 0
    out = capsys.readouterr().out
    path.write_text(TEXT + "auth:\n  keys:\n" + out[out.index("  - {") :])

    auth = Authenticator(load(path).auth.keys)

    assert auth.authenticate({b"api-key": secret(out).encode()}).tenant == "acme"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["new", "--domain", "nowhere"], "there are: all"),
        (["new", "--model", "nothing"], "there are: gpt-4o"),
    ],
)
def test_scope_that_is_nothing_is_refused(routes, capsys, arguments, why):
    assert keys(routes, *arguments) == 2

    assert why in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["revoke", "sk-x"], ["new", "--replaces", "sk-x"]])
def test_keys_of_routes_yaml_are_changed_there(tmp_path, capsys, arguments):
    path = tmp_path / "routes.yaml"
    path.write_text(TEXT)

    assert keys(path, *arguments) == 2
