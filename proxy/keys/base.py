"""One key: who holds it, what it opens, until when; and what all places that keep keys have.

A key is 256 random bits, so that one round of SHA-256 is enough to keep it: nobody guesses it, and
no dictionary has it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from proxy.discreet import Discreet
from proxy.errors import CannotStart

BEGIN = "sk-headrace-"
"""What our keys begin with. `sk-` is what scanners for secrets look for, our redaction included."""
_SHOWN = len(BEGIN) + 8
"""Characters of a key that are shown: 48 of its 256 bits, enough to tell keys apart."""
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class KeysUnavailable(CannotStart):
    """Where the keys are kept cannot be read or written; or there is no such key."""


class Key(Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key, who holds it, and what it opens."""

    key: str | None = None
    """The secret, best as a reference: `${HEADRACE_KEY}`. At least 16 characters, since anything
    shorter can be guessed. Give this or `hash`."""
    hash: str | None = None
    """`sha256:` and the digest of the secret, as `headrace keys new` prints it. Default: of `key`.
    """
    prefix: str = ""
    """How the key begins: people know it by this. Default: what `key` begins with."""
    tenant: str = "default"
    """Whose requests these are; records, caches and limits are kept apart by tenant."""
    name: str = "default"
    """Which of the tenant's programs calls."""
    admin: bool = False
    """Whether it is the operator's: sees every tenant, chooses adapters, reloads. Default no."""
    domains: list[str] = []
    """Domains that it may use. Default: all that its tenant may."""
    models: list[str] = []
    """Model names that it may ask for. Default: all."""
    expires: datetime | None = None
    """When it stops working, with a time zone: `2027-01-01T00:00:00Z`. Default: never."""

    def __post_init__(self) -> None:
        if (self.key is None) == (self.hash is None):
            raise ValueError("a key has either `key` or `hash`; `headrace keys new` makes one")
        if self.key is not None and len(self.key) < 16:
            raise ValueError("a key has at least 16 characters; `headrace keys new` makes one")
        if self.hash is not None and not _HASH.fullmatch(self.hash):
            raise ValueError("a hash is `sha256:` and 64 hexadecimal digits; see `headrace keys`")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("`expires` lacks a time zone: write it as 2027-01-01T00:00:00Z")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the secret."""
        return digest((self.key or "").encode()) if self.hash is None else _unhexed(self.hash)

    @property
    def shown(self) -> str:
        """How it begins, or, where that is not known, its name."""
        return self.prefix or self.name

    def is_over(self, at: float) -> bool:
        """Whether it has stopped working; `at` in seconds since the epoch."""
        return self.expires is not None and self.expires.timestamp() <= at


def digest(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret).digest()


def _unhexed(hash: str) -> bytes:
    return bytes.fromhex(hash.removeprefix("sha256:"))


def new(described: Key) -> tuple[str, Key]:
    """A new secret, and `described` as what is kept of it."""
    secret = BEGIN + secrets.token_urlsafe(32)
    hash = f"sha256:{digest(secret.encode()).hex()}"
    kept = msgspec.structs.replace(described, key=None, hash=hash, prefix=secret[:_SHOWN])
    return secret, kept


def a_new_key() -> Key:
    """A key that opens nothing yet: to be described, and then made by `new`."""
    return Key(hash="sha256:" + "0" * 64)


class KeyStore(Protocol):
    """A place where keys are kept. Its methods block, and raise KeysUnavailable."""

    def read(self) -> list[Key]:
        """All keys, those that are over included."""

    def add(self, key: Key) -> None:
        """Keep one more."""

    def expire(self, prefix: str, at: datetime) -> Key:
        """Let the one key that begins so stop working then; the key, as it is now."""


def the_one(keys: Sequence[Key], prefix: str) -> Key:
    """The key that begins so; raises KeysUnavailable unless it is exactly one."""
    found = [key for key in keys if prefix and key.prefix.startswith(prefix)]
    if len(found) != 1:
        how_many = "several keys begin" if found else "no key begins"
        raise KeysUnavailable(f"{how_many} with {prefix!r}; see `headrace keys ls`")
    return found[0]


def until(key: Key, at: datetime) -> Key:
    """The key with an end that is no later than `at`."""
    end = at.astimezone(UTC)
    return msgspec.structs.replace(key, expires=min(key.expires or end, end))
