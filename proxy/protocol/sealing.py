"""Encryption at rest: AES-256-GCM, with keys that can change.

    sealed = length of the key's id (1 byte) | the id | nonce (12 bytes) | ciphertext and tag

What a key sealed is opened by the same key, found by its id: a new key is taken into use by naming
it, and an old one stays for as long as something that it sealed. The nonce is random; one key is
good for some 2³² records (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class SealError(Exception):
    """Something is encrypted with a key that is not here; the message names the key."""


class Spoilt(ValueError):
    """Something was changed after it was encrypted, or is cut short."""


class Keyring:
    """Seals with one key, opens with any that it has. Raises ImportError where it is made when the
    package `cryptography` is missing."""

    def __init__(self, keys: Mapping[str, bytes], use: str) -> None:
        """`keys`: 32 bytes each, by id; an id has at most 255 bytes."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._ciphers: dict[bytes, AESGCM] = {id.encode(): AESGCM(key) for id, key in keys.items()}
        self._use = use.encode()

    def seal(self, content: bytes, label: bytes) -> bytes:
        """The content, encrypted; `label` is not in it, but it opens with the same one only."""
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._ciphers[self._use].encrypt(nonce, content, label)

    def open(self, sealed: bytes, label: bytes) -> bytes:
        """The content; raises SealError without the key, and Spoilt."""
        from cryptography.exceptions import InvalidTag

        at = 1 + (sealed[0] if sealed else 0)
        id, nonce = sealed[1:at], sealed[at : at + _NONCE]
        if len(nonce) < _NONCE:
            raise Spoilt("what is encrypted is cut short")
        if id not in self._ciphers:
            raise SealError(f"this is encrypted with the key {id.decode(errors='replace')!r}")
        try:
            return self._ciphers[id].decrypt(nonce, sealed[at + _NONCE :], label)
        except InvalidTag:
            raise Spoilt("what is encrypted was changed") from None

    @cached_property
    def _head(self) -> bytes:
        return bytes([len(self._use)]) + self._use
