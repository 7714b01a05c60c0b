"""An adapter bundle: a directory, written once by the trainer, read by the proxy.

    api-v1/
    ├── adapter_config.json        PEFT's own
    ├── adapter_model.safetensors  PEFT's own, bf16
    ├── manifest.json              Manifest, below; written last, so that it marks a whole bundle
    ├── template.jinja             the prompt template, frozen with the weights
    ├── template-<format>.jinja    the same for each further format, if it was trained for several
    ├── canary.json                a prompt's ids and the greedy answer's, to prove a load
    ├── parity.json                requests and the ids they were trained as, to prove a template
    ├── calibration.json           how sure its calls must be; absent until it is measured
    ├── lineage.json               the exchanges that it learnt from, for erasure
    ├── signature.json             signature of the manifest; absent where nobody signs
    └── README.md                  the model card

The manifest names the hash of every other file but the signature: whoever trusts it trusts them.

The champion file (champions.py) says which bundle serves a domain now.

A bundle comes from disk or a bucket and is hostile until `read` has passed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.protocol import atomic, signature
from proxy.protocol.calibration import Calibration
from proxy.protocol.parity import PARITY, Sample
from proxy.protocol.signature import SIGNATURE, Signature, SignatureError, Trusted

MANIFEST = "manifest.json"
TEMPLATE = "template.jinja"
CANARY = "canary.json"
CALIBRATION = "calibration.json"
LAYOUT = 2
LINEAGE = "lineage.json"
CARD = "README.md"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LIMIT = 64 * 1024 * 1024
"""Bytes of a file that is read into memory, at most; weights are not."""


class AdapterError(ValueError):
    """A bundle or champion file that cannot be used; the message names the file and the remedy."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself."""

    layout: int = 1
    """2: `files`. A layout that an older release would misread has a higher number."""
    id: str
    """Immutable name, `<domain>-v<N>`; a new training makes a new id."""
    domain: str
    format: str
    """Name of the prompt format that it was trained with, a key of proxy.protocol.formats."""
    base_model: str
    base_sha256: str
    """Hash of the base model's weight file, which is its revision, too."""
    base_precision: str = "bf16"
    """How the base was held while training: `nf4` learns to make good for what 4 bits lose."""
    formats: dict[str, str] = {}
    """Further formats that it was trained for → hash of `template-<format>.jinja`."""
    tokenizer_sha256: str
    template_sha256: str
    weights_sha256: str
    tool_fingerprints: dict[str, str] = {}
    """Tools seen in training: name → fingerprint of the schema."""
    files: dict[str, str] = {}
    """Every file but this one and the signature → its hash. Empty in bundles from before there was
    such a list: of those, weights and templates alone are proven."""
    dataset_fingerprint: str
    run: str = ""
    """Name of the run directory that it comes from."""
    recipe: msgspec.Raw = msgspec.Raw(b"{}")
    seed: int = 0
    versions: dict[str, str] = {}
    """Library → version, as trained."""
    metrics: dict[str, float] = {}
    created_at: str = ""
    """ISO 8601 date and time, UTC."""


class Canary(msgspec.Struct, frozen=True):
    """Proof of a load: after `prompt` (token ids) come `expected`, greedily, and not `base`."""

    prompt: list[int]
    expected: list[int]
    base: list[int]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter learnt from, as far as it was recorded traffic."""

    exchanges: list[str] = []
    """Ids, sorted. If one of them is erased, the adapter is tainted."""


class Adapter(msgspec.Struct, frozen=True):
    """A bundle that has been read and found whole."""

    path: Path
    manifest: Manifest
    template: str
    canary: Canary
    calibration: Calibration | None = None
    parity: tuple[Sample, ...] = ()
    """Empty in bundles from before there was such a file."""
    further: Mapping[str, str] = {}
    """Further formats → their templates."""

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def templates(self) -> dict[str, str]:
        """Format → its template, of all that it was trained for."""
        return {self.manifest.format: self.template, **self.further}


def read(path: Path, trusted: Trusted | None = None) -> Adapter:
    """The bundle in `path`; raises AdapterError when a file is missing, torn or not what it was,
    and, where keys are given, when none of them signed it."""
    manifest = read_manifest(path, trusted)
    _check_all(path, manifest)
    _decode(path / CONFIG, dict[str, object])
    further = {format: _text(path / further_template(format)) for format in manifest.formats}
    return Adapter(
        path,
        manifest,
        _text(path / TEMPLATE),
        _decode(path / CANARY, Canary),
        _decode(path / CALIBRATION, Calibration) if (path / CALIBRATION).exists() else None,
        _decode(path / PARITY, tuple[Sample, ...]) if (path / PARITY).exists() else (),
        further,
    )


def is_unchanged(adapter: Adapter) -> bool:
    """Whether a bundle that was read before says the same of itself; raises AdapterError."""
    return _decode(adapter.path / MANIFEST, Manifest) == adapter.manifest


def read_manifest(path: Path, trusted: Trusted | None = None) -> Manifest:
    """What a bundle says of itself, its files unread. Raises AdapterError."""
    content = read_file(path / MANIFEST)
    manifest = _decoded(path / MANIFEST, content, Manifest)
    if manifest.layout > LAYOUT:
        raise AdapterError(
            f"{path / MANIFEST} was written by a newer release (its layout is {manifest.layout},"
            f" this one reads up to {LAYOUT}); upgrade this one"
        )
    if not ADAPTER_ID.fullmatch(manifest.id):
        raise AdapterError(
            f"{path / MANIFEST}: {manifest.id!r} is no adapter id (a-z, 0-9, '.', '_', '-')"
        )
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE):
            raise AdapterError(f"{path / MANIFEST}: {name!r} is no file of a bundle")
    if trusted is not None:
        _verify(path, content, manifest, trusted)
    return manifest


def _verify(path: Path, content: bytes, manifest: Manifest, trusted: Trusted) -> None:
    remedy = "sign it with `headrace-trainer registry sign`, or take `signed_by` out of routes.yaml"
    if not (path / SIGNATURE).exists():
        raise AdapterError(f"{path} is not signed; {remedy}")
    if not manifest.files:
        raise AdapterError(f"{path / MANIFEST} does not name all files; {remedy}")
    try:
        trusted.verify(content, _decode(path / SIGNATURE, Signature))
    except SignatureError as error:
        raise AdapterError(f"{path / SIGNATURE}: {error}; {remedy}") from error


def _check_all(path: Path, manifest: Manifest) -> None:
    """Each file that the manifest names is what it names; none is there that it does not name."""
    hashed = cache(hash_file)
    further = {further_template(format): hash for format, hash in manifest.formats.items()}
    always = {TEMPLATE: manifest.template_sha256, WEIGHTS: manifest.weights_sha256, **further}
    for name, expected in (*always.items(), *manifest.files.items()):
        if hashed(path / name) != expected:
            raise AdapterError(
                f"{path / name} is not the file that its manifest names; fetch or train the bundle"
                " again"
            )
    for name in files(path) if manifest.files else ():
        if name not in manifest.files:
            raise AdapterError(
                f"{path / name} is not named by its manifest; remove it, or fetch the bundle again"
            )


def files(path: Path) -> Iterator[str]:
    """Names of a bundle's files, sorted, without the manifest and its signature; hidden ones are
    none of it."""
    for file in sorted(path.iterdir()):
        if not file.name.startswith(".") and file.name not in (MANIFEST, SIGNATURE):
            yield file.name


def seal(path: Path, manifest: Manifest) -> None:
    """Write the manifest, with the hash of every file that is there now, in one step."""
    named = {name: hash_file(path / name) for name in files(path)}
    sealed = msgspec.structs.replace(manifest, files=named, layout=LAYOUT)
    _replace(path / MANIFEST, msgspec.json.encode(sealed))


def sign(path: Path, private: bytes) -> None:
    """Seal a whole bundle and sign its manifest with a key in PEM. Raises AdapterError."""
    seal(path, read(path).manifest)
    try:
        signed = signature.sign(read_file(path / MANIFEST), private)
    except SignatureError as error:
        raise AdapterError(str(error)) from error
    _replace(path / SIGNATURE, msgspec.json.encode(signed))


def further_template(format: str) -> str:
    """Name of the file that holds a further format's template."""
    if not ADAPTER_ID.fullmatch(format):
        raise AdapterError(f"{format!r} is no name of a format")
    return f"template-{format}.jinja"


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Put a calibration into the bundle at `path`, which nobody uses yet, and seal it again."""
    manifest = read_manifest(path)
    _replace(path / CALIBRATION, msgspec.json.encode(calibration))
    seal(path, manifest)


def _replace(target: Path, content: bytes) -> None:
    atomic.write(target, msgspec.json.format(content, indent=2) + b"\n")


def sha256(content: bytes) -> str:
    """Hash of a bundle's file, as the manifest has it."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: Path) -> str:
    """The same of a file, however large; raises AdapterError."""
    try:
        with _opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AdapterError(f"{path}: {error.strerror}; fetch or train the bundle again") from error


def _opened(path: Path) -> io.BufferedReader:
    """A plain file, for reading. A link could name a secret of this machine, which is then copied,
    or shown, with the bundle; a pipe or a device has no end. Raises OSError."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link, and a bundle holds files")
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no file, but a directory, a pipe or a device")
    return open(handle, "rb")


def read_file(path: Path) -> bytes:
    """A small file of a bundle, at most 64 MiB; raises AdapterError."""
    try:
        with _opened(path) as file:
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise AdapterError(f"{path}: {error.strerror}; fetch or train the bundle again") from error
    if len(content) > _LIMIT:
        raise AdapterError(f"{path} has more than {_LIMIT} bytes; it is none of a bundle's files")
    return content


def _text(path: Path) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise AdapterError(f"{path}: {error}; fetch or train the bundle again") from error


T = TypeVar("T")


def _decode(path: Path, kind: type[T]) -> T:
    return _decoded(path, read_file(path), kind)


def _decoded(path: Path, content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterError(f"{path}: {error}") from error
