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
    └── README.md                  the model card

The champion file (champions.py) says which bundle serves a domain now.

A bundle comes from disk or a bucket and is hostile until `read` has passed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.protocol.calibration import Calibration
from proxy.protocol.parity import PARITY, Sample

MANIFEST = "manifest.json"
TEMPLATE = "template.jinja"
CANARY = "canary.json"
CALIBRATION = "calibration.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class AdapterError(ValueError):
    """A bundle or champion file that cannot be used; the message names the file and the remedy."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself."""

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
    dataset_fingerprint: str
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


def read(path: Path) -> Adapter:
    """The bundle in `path`; raises AdapterError when a file is missing, torn or not what it was."""
    manifest = _decode(path / MANIFEST, Manifest)
    if not ADAPTER_ID.fullmatch(manifest.id):
        raise AdapterError(
            f"{path / MANIFEST}: {manifest.id!r} is no adapter id (a-z, 0-9, '.', '_', '-')"
        )
    template = _bytes(path / TEMPLATE)
    _check(path / TEMPLATE, template, manifest.template_sha256)
    _check(path / WEIGHTS, _bytes(path / WEIGHTS), manifest.weights_sha256)
    _decode(path / CONFIG, dict[str, object])
    further = {f: _template(path / further_template(f), h) for f, h in manifest.formats.items()}
    return Adapter(
        path,
        manifest,
        template.decode(),
        _decode(path / CANARY, Canary),
        _calibration(path / CALIBRATION),
        _decode(path / PARITY, tuple[Sample, ...]) if (path / PARITY).exists() else (),
        further,
    )


def refreshed(adapter: Adapter) -> Adapter | None:
    """A bundle that was read before, with its calibration of now: nothing else in it changes.

    None where its manifest is another one by now; raises AdapterError.
    """
    if _decode(adapter.path / MANIFEST, Manifest) != adapter.manifest:
        return None
    calibration = _calibration(adapter.path / CALIBRATION)
    return msgspec.structs.replace(adapter, calibration=calibration)


def _template(path: Path, hashed: str) -> str:
    content = _bytes(path)
    _check(path, content, hashed)
    return content.decode()


def further_template(format: str) -> str:
    """Name of the file that holds a further format's template."""
    if not ADAPTER_ID.fullmatch(format):
        raise AdapterError(f"{format!r} is no name of a format")
    return f"template-{format}.jinja"


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Put a calibration into the bundle at `path`, in one step."""
    _replace(path / CALIBRATION, msgspec.json.encode(calibration))


def _calibration(path: Path) -> Calibration | None:
    return _decode(path, Calibration) if path.exists() else None


def _replace(target: Path, content: bytes) -> None:
    staged = target.with_suffix(".tmp")
    staged.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
    os.replace(staged, target)


def sha256(content: bytes) -> str:
    """Hash of a bundle's file, as the manifest has it."""
    return hashlib.sha256(content).hexdigest()


def _check(path: Path, content: bytes, expected: str) -> None:
    if sha256(content) != expected:
        raise AdapterError(
            f"{path} is not the file that its manifest names; fetch or train the bundle again"
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path}: {error.strerror}; fetch or train the bundle again") from error


T = TypeVar("T")


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(_bytes(path), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AdapterError(f"{path}: {error}") from error
