"""Signatures: who signed it is trusted, and nobody else; what was signed, and nothing else."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from proxy.protocol.signature import Signature, SignatureError, Trusted, generate, sign

MANIFEST = b'{"id": "geo-v1"}'


def test_what_one_of_the_keys_signed_is_trusted(tmp_path: Path):
    first, second = generate(), generate()
    (tmp_path / "second.pub").write_text(f"{second.public}\n")
    trusted = Trusted([first.public, f"file:{tmp_path / 'second.pub'}"])

    trusted.verify(MANIFEST, sign(MANIFEST, first.private))
    trusted.verify(MANIFEST, sign(MANIFEST, second.private))


def test_a_stranger_is_named_and_not_trusted():
    signature = sign(MANIFEST, generate().private)

    with pytest.raises(SignatureError, match=f"signed by '{signature.key}', and trusted are"):
        Trusted([generate().public]).verify(MANIFEST, signature)


def test_a_stranger_under_a_trusted_name_is_not_trusted():
    ours = generate()
    forged = Signature(
        sign(MANIFEST, ours.private).key, sign(MANIFEST, generate().private).signature
    )

    with pytest.raises(SignatureError, match="of another manifest"):
        Trusted([ours.public]).verify(MANIFEST, forged)


@pytest.mark.parametrize("signature", ["", "no base64", "AAAA"])
def test_no_signature_at_all_is_not_trusted(signature: str):
    ours = generate()
    key = sign(MANIFEST, ours.private).key

    with pytest.raises(SignatureError, match="of another manifest"):
        Trusted([ours.public]).verify(MANIFEST, Signature(key, signature))


def test_another_manifest_is_not_trusted():
    ours = generate()

    with pytest.raises(SignatureError, match="of another manifest"):
        Trusted([ours.public]).verify(MANIFEST + b" ", sign(MANIFEST, ours.private))


@pytest.mark.parametrize("given", ["", "AAAA", "no base64", "ü", "file:/nowhere/key.pub"])
def test_a_public_key_that_is_none_is_told(given: str):
    with pytest.raises(SignatureError, match=r"32 bytes in base64|No such file"):
        Trusted([given])


def test_a_private_key_of_openssl_signs(tmp_path: Path):
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"],
        check=True,
        capture_output=True,
    ).stdout[-32:]
    (tmp_path / "key.pub").write_bytes(base64.b64encode(public))

    Trusted([f"file:{tmp_path / 'key.pub'}"]).verify(MANIFEST, sign(MANIFEST, key.read_bytes()))


@pytest.mark.parametrize("private", [b"", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_private_key_that_is_none_is_told(private: bytes):
    with pytest.raises(SignatureError, match="no PEM file"):
        sign(MANIFEST, private)


def test_a_private_key_of_another_kind_is_told(tmp_path: Path):
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", key], check=True)

    with pytest.raises(SignatureError, match="none of Ed25519"):
        sign(MANIFEST, key.read_bytes())
