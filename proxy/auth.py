"""Who is calling: a key, or a token of an identity provider, names a caller and its tenant.

What is presented is looked up by a hash that is keyed with a secret of this process: how long that
takes says nothing about any key.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from proxy.auth_settings import DEFAULT_TENANT
from proxy.errors import Forbidden, Unauthenticated, UnknownModel
from proxy.keys.base import Key, KeyStore, KeysUnavailable, digest

log = structlog.get_logger(__name__)


class Caller(NamedTuple):
    """Who sent a request, and what it may."""

    tenant: str
    name: str
    is_admin: bool = False
    domains: frozenset[str] | None = None
    """None: all that the tenant may use."""
    models: frozenset[str] | None = None
    """None: all."""
    has_account: bool = False
    """Whether it may use what is kept in the clouds' account."""

    def check_model(self, model: str) -> None:
        """Raise UnknownModel for a model that exists not for this caller."""
        if self.models is not None and model not in self.models:
            known = ", ".join(sorted(self.models))
            raise UnknownModel(
                f"The model {model[:64]!r} does not exist here; this key may use: {known}", "model"
            )

    def check_domain(self, domain: str) -> None:
        """Raise Forbidden for a domain that this key was not made for."""
        if self.domains is not None and domain not in self.domains:
            raise Forbidden(f"this key may not use the domain {domain!r}")


ANONYMOUS = Caller(DEFAULT_TENANT, "anonymous", is_admin=True, has_account=True)
"""Everybody, where there are no keys: only this machine gets in, and it is its owner's."""


class Tokens(Protocol):
    """Reads the tokens of an identity provider."""

    def caller(self, token: bytes) -> Caller | None:
        """Whose token it is; None for what is no token. Raises Unauthenticated for a bad one."""


class Authenticator:
    """Turns the headers of a request into its caller."""

    def __init__(
        self,
        keys: Sequence[Key],
        *,
        is_open: bool | None = None,
        tokens: Tokens | None = None,
        account_tenants: Iterable[str] = (DEFAULT_TENANT,),
        now: Callable[[], float] = time.time,
    ) -> None:
        """`is_open`: whether everybody is let in; default: where there are no keys."""
        self._is_open = not keys if is_open is None else is_open
        self._tokens = tokens
        self._account_tenants = frozenset(account_tenants)
        self._now = now
        self._blind = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Key, Caller]] = {}
        self.know(keys)

    @property
    def is_open(self) -> bool:
        """Whether no key is needed: then everybody is ANONYMOUS."""
        return self._is_open

    def know(self, keys: Iterable[Key]) -> None:
        """From now on these are the keys."""
        self._known = {self._blinded(key.digest): (key, self._holder(key)) for key in keys}

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller; raises Unauthenticated for a missing, unknown or expired key.

        `headers` has lower-case names; `Authorization: Bearer` and Azure's `api-key` are read.
        """
        if self._is_open:
            return ANONYMOUS
        presented = _presented(headers)
        if not presented:
            raise Unauthenticated("no API key: send it as `Authorization: Bearer <key>`")
        found = self._by_key(presented)
        if found is None and self._tokens is not None:
            found = self._by_token(self._tokens, presented)
        if found is None:
            raise Unauthenticated("the API key is not known here")
        return found

    def holder(self, is_meant: Callable[[bytes], bool]) -> Caller | None:
        """The caller whose key has the digest that is meant; None where there is none, or none any
        more. For sessions that began with a key."""
        now = self._now()
        for key, caller in self._known.values():
            if is_meant(key.digest) and not key.is_over(now):
                return caller
        return None

    def _by_key(self, presented: bytes) -> Caller | None:
        given = digest(presented)
        key, caller = self._known.get(self._blinded(given), (None, None))
        if key is None or not hmac.compare_digest(key.digest, given):
            return None
        if key.is_over(self._now()):
            raise Unauthenticated("the API key has expired")
        return caller

    def _by_token(self, tokens: Tokens, presented: bytes) -> Caller | None:
        caller = tokens.caller(presented)
        if caller is None:
            return None
        return caller._replace(has_account=caller.tenant in self._account_tenants)

    def _blinded(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._blind, digest_size=32).digest()

    def _holder(self, key: Key) -> Caller:
        return Caller(
            key.tenant,
            key.name,
            key.admin,
            frozenset(key.domains) if key.domains else None,
            frozenset(key.models) if key.models else None,
            key.tenant in self._account_tenants,
        )


class KeyWatch:
    """Tells an Authenticator of the keys that are kept somewhere, again and again.

    Never on a request's way: while the place cannot be read, the keys stay those that it last had.
    """

    def __init__(
        self, auth: Authenticator, given: Sequence[Key], store: KeyStore, refresh_s: float
    ) -> None:
        """`given` are the keys of routes.yaml, which are let in besides."""
        self._auth = auth
        self._given = list(given)
        self._store = store
        self._refresh_s = refresh_s
        self._has_failed = False

    async def refresh(self) -> None:
        """Read the keys once; raises KeysUnavailable."""
        kept = await asyncio.to_thread(self._store.read)
        self._auth.know([*self._given, *kept])

    async def run(self) -> None:
        """Read them again until cancelled."""
        while True:
            await asyncio.sleep(self._refresh_s)
            try:
                await self.refresh()
            except KeysUnavailable as error:
                if not self._has_failed:
                    log.error("keys_unavailable", reason=str(error))
                self._has_failed = True
            else:
                self._has_failed = False


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
