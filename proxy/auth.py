"""Who is calling: a key in the headers names a caller and its tenant.

Keys are compared as hashes, all of them, in constant time: how long a refusal takes says nothing
about any key.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from proxy.errors import Unauthenticated


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key and who holds it."""

    key: str
    """The secret, best as a reference: `${HEADRACE_KEY}`. At least 16 characters, since anything
    shorter can be guessed."""
    tenant: str = "default"
    """Whose requests these are; records and limits are kept apart by tenant."""
    name: str = "default"
    """Which of the tenant's programs calls."""
    admin: bool = False
    """Whether the caller may say which adapter answers (`x-headrace-adapter`). Default no."""

    def __post_init__(self) -> None:
        if len(self.key) < 16:
            raise ValueError("a key has at least 16 characters; `openssl rand -hex 24` makes one")


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call."""

    keys: list[Key] = []
    """Keys that are let in. Default none: everybody who can reach the port is let in, and the
    server therefore listens on loopback addresses only."""


class Caller(NamedTuple):
    """Who sent a request."""

    tenant: str
    name: str
    is_admin: bool = False


ANONYMOUS = Caller("default", "anonymous", is_admin=True)
"""Everybody, where there are no keys: only this machine gets in, and it is its owner's."""


class Authenticator:
    """Turns the headers of a request into its caller."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._callers = [
            (_hashed(key.key), Caller(key.tenant, key.name, key.admin)) for key in keys
        ]

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller; raises Unauthenticated for a missing or unknown key.

        `headers` has lower-case names; `Authorization: Bearer` and Azure's `api-key` are read.
        """
        if not self._callers:
            return ANONYMOUS
        presented = _presented(headers)
        if not presented:
            raise Unauthenticated("no API key: send it as `Authorization: Bearer <key>`")
        found = self._holder(_hashed_bytes(presented))
        if found is None:
            raise Unauthenticated("the API key is not known here")
        return found

    def _holder(self, digest: bytes) -> Caller | None:
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _presented(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"api-key", b"").strip()


def _hashed(key: str) -> bytes:
    return _hashed_bytes(key.encode())


def _hashed_bytes(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
