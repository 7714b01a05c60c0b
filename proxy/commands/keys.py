"""headrace keys: make a key, list keys, take one back. A secret is shown once, and never kept."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from proxy import config
from proxy.commands.shared import Commands, add_with_config, table
from proxy.config import Config
from proxy.errors import BadConfig
from proxy.keys.base import Key, KeyStore, a_new_key, new, the_one
from proxy.keys.stores import store_of
from proxy.protocol.command_line import positive

_COLUMNS = ("prefix", "tenant", "name", "may", "expires", "state")


class _Made(msgspec.Struct):
    """What `keys new --json` prints."""

    key: str
    entry: Key
    """What is kept of it."""
    kept: bool
    """Whether it is kept already; else it is for `auth.keys`."""


def add(commands: Commands) -> None:
    """Add `keys` and its commands to a command line."""
    keys = commands.add_parser("keys", help="make, list and revoke keys of callers")
    managing = keys.add_subparsers(required=True, metavar="command")
    _add_new(add_with_config(managing, "new", _new, "make a key; it is shown once"))
    ls = add_with_config(managing, "ls", _ls, "one line a key, those that are over included")
    ls.add_argument("--json", action="store_true", help="one JSON object a line")
    revoke = add_with_config(managing, "revoke", _revoke, "let a key stop working at once")
    revoke.add_argument("prefix", help="how the key begins, as `ls` shows it")
    revoke.add_argument("--json", action="store_true", help="print whose key it was as JSON")


def _add_new(parser: argparse.ArgumentParser) -> None:
    one = parser.add_argument
    one("--tenant", default="default", help="whose requests these are (%(default)s)")
    one("--name", default="default", help="which of its programs calls (%(default)s)")
    one("--admin", action="store_true", help="the operator's: sees every tenant")
    one("--domain", action="append", default=[], help="may use this domain; again for more (all)")
    one("--model", action="append", default=[], help="may ask for this model; again for more (all)")
    one("--days", type=positive(36_500), help="stops working after so many days (never)")
    one("--replaces", metavar="PREFIX", help="what holds for this key holds for the new one")
    one("--overlap-hours", type=positive(8760), default=24, help="how long both work (%(default)s)")
    one("--json", action="store_true", help="the key and its entry as JSON")


# ---------------------------------------------------------------- new


def _new(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    store = store_of(settings.auth.file, settings.auth.database)
    secret, key = new(_described(options, settings, store))
    if store is not None:
        store.add(key)
    if store is not None and options.replaces:
        store.expire(options.replaces, _in(hours=options.overlap_hours))
    print(_told(_Made(secret, key, store is not None), options.json))
    return 0


def _described(options: argparse.Namespace, settings: Config, store: KeyStore | None) -> Key:
    expires = None if options.days is None else _in(days=options.days)
    if options.replaces:
        if store is None:
            raise BadConfig("--replaces needs a place where keys are kept: auth.file or .database")
        old = the_one(store.read(), options.replaces)
        return msgspec.structs.replace(old, expires=expires)
    for domain in options.domain:
        if domain not in settings.domains:
            raise BadConfig(f"--domain: no domain {domain!r}; there are: {_list(settings.domains)}")
    for model in options.model:
        if model not in settings.models:
            raise BadConfig(f"--model: no model {model!r}; there are: {_list(settings.models)}")
    return msgspec.structs.replace(
        a_new_key(),
        tenant=options.tenant,
        name=options.name,
        admin=options.admin,
        domains=options.domain,
        models=options.model,
        expires=expires,
    )


def _told(made: _Made, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(made).decode()
    entry = msgspec.json.encode({k: v for k, v in _fields(made.entry) if v}).decode()
    where = "It is kept already." if made.kept else f"Put this under auth.keys:\n\n  - {entry}"
    return f"{made.key}\n\nThis is the only time that the key is shown. {where}"


def _fields(key: Key) -> Iterator[tuple[str, object]]:
    return ((name, getattr(key, name)) for name in key.__struct_fields__)


def _in(days: float = 0, hours: float = 0) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days, hours=hours)


def _list(names: object) -> str:
    return ", ".join(names) if isinstance(names, list | dict) else ""


# ---------------------------------------------------------------- ls, revoke


def _ls(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    store = store_of(settings.auth.file, settings.auth.database)
    keys = [*settings.auth.keys, *(store.read() if store else [])]
    if options.json:
        for key in keys:
            shown = msgspec.structs.replace(key, key=None, hash=f"sha256:{key.digest.hex()}")
            print(msgspec.json.encode(shown).decode())
        return 0
    print("\n".join(table([_COLUMNS, *map(_row, keys)])))
    return 0


def _row(key: Key) -> tuple[str, ...]:
    scopes = [*(["admin"] if key.admin else []), *key.domains, *key.models]
    return (
        key.prefix or "-",
        key.tenant,
        key.name,
        " ".join(scopes) or "all",
        key.expires.isoformat(timespec="minutes") if key.expires else "never",
        "over" if key.is_over(datetime.now(UTC).timestamp()) else "works",
    )


def _revoke(options: argparse.Namespace) -> int:
    auth = config.load(options.config).auth
    store = store_of(auth.file, auth.database)
    if store is None:
        raise BadConfig("the keys are in routes.yaml: take the entry out there, and reload")
    key = store.expire(options.prefix, _in())
    if options.json:
        gone = {"prefix": key.prefix, "tenant": key.tenant, "name": key.name}
        print(msgspec.json.encode(gone).decode())
    else:
        print(f"{key.prefix} of {key.tenant}/{key.name} works no more")
    return 0
