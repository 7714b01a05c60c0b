"""Sessions without a store: cookies that we have signed, and tokens that prove a form is ours.

A session names the key that it began with by a keyed hash, and ends when that key does. The key
itself is nowhere in it. A token belongs to one session: another site can send a form, but it cannot
know the token, and the browser does not send it the cookie (SameSite=Strict).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

import msgspec
from cachetools import TTLCache

_LARGEST = 1024
"""Letters of a cookie that are looked at."""
_TRIES = 10
"""Wrong keys a minute from one address."""
_TRIES_OF_ALL = 100
"""Wrong keys a minute from everywhere."""
WINDOW_S = 60
_ADDRESSES = 4096


class Session(msgspec.Struct, frozen=True):
    """Who is logged in, and until when."""

    id: str
    key: str
    """Hash of the key, keyed with our secret."""
    until: float
    """Seconds since the epoch."""


class Seal:
    """Signs with one secret, each kind of thing apart."""

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._now = now

    def begin(self, digest: bytes, hours: float) -> str:
        """The cookie of a new session, by the digest of the key that it begins with."""
        until = self._now() + hours * 60 * 60
        session = Session(secrets.token_urlsafe(16), self.name(digest), until)
        content = msgspec.json.encode(session)
        return f"{_text(content)}.{_text(self._mac(b'session', content))}"

    def opened(self, cookie: str) -> Session | None:
        """The session of a cookie; None for one that we did not sign, or that is over."""
        content, signature = (_bytes(part) for part in (cookie[:_LARGEST] + ".").split(".")[:2])
        if not hmac.compare_digest(signature, self._mac(b"session", content)):
            return None
        session = msgspec.json.decode(content, type=Session)
        return session if session.until > self._now() else None

    def name(self, digest: bytes) -> str:
        """What a key is called in cookies."""
        return self._mac(b"key", digest).hex()

    def token(self, identity: str) -> str:
        """What the forms of this visitor carry."""
        return _text(self._mac(b"form", identity.encode()))

    def is_token(self, given: str, identity: str) -> bool:
        """Whether a form of this visitor may have carried it."""
        return hmac.compare_digest(given.encode(), self.token(identity).encode())

    def _mac(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._secret, purpose + b"\0" + content, hashlib.sha256)


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Empty for what is no base64; that has no signature of ours."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


class Tries:
    """Counts wrong keys, so that nobody tries many."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._wrong: TTLCache[str, int] = TTLCache(_ADDRESSES, WINDOW_S, timer=now)
        self._of_all: TTLCache[str, int] = TTLCache(1, WINDOW_S, timer=now)

    def may(self, address: str) -> bool:
        """Whether this address may try once more."""
        return self._wrong.get(address, 0) < _TRIES and self._of_all.get("", 0) < _TRIES_OF_ALL

    def was_wrong(self, address: str) -> None:
        """It tried a wrong one."""
        self._wrong[address] = self._wrong.get(address, 0) + 1
        self._of_all[""] = self._of_all.get("", 0) + 1
