"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest, which names every file's hash.

    signature.json = {"key": id of the public key, "signature": base64}

Keys: the private one is PKCS #8 in PEM, as OpenSSL writes it; the public one is its 32 bytes in
base64. A key's id is the beginning of the SHA-256 of those bytes. Needs the package `cryptography`
(extra `signed`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "signature.json"
_CONTEXT = b"headrace bundle 1\n"
"""Stands before what is signed, so that no signature made for another purpose passes here."""


class SignatureError(ValueError):
    """A key that is none, or a signature that is missing, of a stranger, or of something else."""


class Signature(msgspec.Struct, frozen=True):
    """The file in a bundle."""

    key: str
    signature: str


class Pair(NamedTuple):
    """A new key."""

    private: bytes
    """PEM."""
    public: str


class Trusted:
    """Public keys; what one of them signed is trusted."""

    def __init__(self, given: Iterable[str]) -> None:
        """`given`: keys, or `file:PATH` of a file that holds one.

        Raises SignatureError, and ImportError where the package `cryptography` is missing.
        """
        self._keys: dict[str, Ed25519PublicKey] = {}
        for text in given:
            raw = _public(text)
            self._keys[key_id(raw)] = _load(raw)

    def verify(self, manifest: bytes, signature: Signature) -> None:
        """Raises SignatureError unless one of the keys signed these bytes."""
        from cryptography.exceptions import InvalidSignature

        key = self._keys.get(signature.key)
        if key is None:
            known = ", ".join(self._keys)
            raise SignatureError(f"it is signed by {signature.key!r}, and trusted are {known}")
        try:
            key.verify(_decoded(signature.signature), _CONTEXT + manifest)
        except InvalidSignature:
            raise SignatureError("its signature is that of another manifest") from None


def generate() -> Pair:
    """A new key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(private, base64.b64encode(key.public_key().public_bytes_raw()).decode())


def sign(manifest: bytes, private: bytes) -> Signature:
    """The signature of a manifest's bytes; raises SignatureError for a key that is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignatureError("the private key is no PEM file without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError("the private key is none of Ed25519")
    signed = key.sign(_CONTEXT + manifest)
    id = key_id(key.public_key().public_bytes_raw())
    return Signature(id, base64.b64encode(signed).decode())


def key_id(raw: bytes) -> str:
    """Name of a public key: 16 hexadecimal digits."""
    return hashlib.sha256(raw).hexdigest()[:16]


def _public(text: str) -> bytes:
    try:
        given = Path(text[5:]).read_text() if text.startswith("file:") else text
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureError(f"{text[5:]}: {error}") from error
    raw = _decoded(given.strip())
    if len(raw) != 32:
        raise SignatureError(
            "a public key is 32 bytes in base64; `headrace-trainer registry keygen` writes one"
        )
    return raw


def _load(raw: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
