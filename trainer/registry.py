"""Bundles on disk: writing a new one, and the next id of a domain."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from proxy.protocol import adapter
from proxy.protocol.adapter import Canary, Manifest
from proxy.protocol.parity import PARITY, Sample
from trainer.errors import TrainingError
from trainer.servable import faults

RECORDED = (
    *("torch", "transformers", "peft", "tokenizers", "gguf", "bfcl-eval"),
    *("bitsandbytes", "trl", "unsloth"),
)


def next_id(directory: Path, domain: str) -> str:
    """`<domain>-v<N>`, one higher than the highest there is: ids are never used twice."""
    taken = [
        re.fullmatch(rf"{re.escape(domain)}-v(\d+)", path.name) for path in directory.glob("*")
    ]
    return f"{domain}-v{max((int(match[1]) for match in taken if match), default=0) + 1}"


def versions() -> dict[str, str]:
    """The libraries that training depends on, as installed."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(
    manifest: Manifest,
    weights: Path,
    templates: Mapping[str, str],
    canary: Canary,
    parity: Sequence[Sample],
    card: str,
    directory: Path,
) -> Path:
    """Write the bundle `directory/<id>` in one step; returns its path.

    `weights` is a directory with PEFT's two files, `templates` format → source. The manifest's
    hashes are set here. Raises TrainingError for an adapter that no engine would load.
    """
    _require_servable(weights / adapter.CONFIG)
    staged = directory / f".{manifest.id}.{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in (adapter.WEIGHTS, adapter.CONFIG):
        shutil.copyfile(weights / name, staged / name)
    further = {format: text for format, text in templates.items() if format != manifest.format}
    (staged / adapter.TEMPLATE).write_text(templates[manifest.format])
    for format, text in further.items():
        (staged / adapter.further_template(format)).write_text(text)
    (staged / adapter.CANARY).write_bytes(msgspec.json.encode(canary))
    (staged / PARITY).write_bytes(msgspec.json.encode(parity))
    (staged / "README.md").write_text(card)
    sealed = msgspec.structs.replace(
        manifest,
        weights_sha256=adapter.sha256((staged / adapter.WEIGHTS).read_bytes()),
        template_sha256=adapter.sha256(templates[manifest.format].encode()),
        formats={format: adapter.sha256(text.encode()) for format, text in further.items()},
    )
    (staged / adapter.MANIFEST).write_bytes(_pretty(sealed))
    os.replace(staged, directory / manifest.id)
    return directory / manifest.id


def _require_servable(path: Path) -> None:
    found = faults(msgspec.json.decode(path.read_bytes(), type=dict[str, object]))
    if found:
        raise TrainingError(f"{path}: {'; '.join(found)}; train it anew with a recipe of ours")


def describe(directory: Path, metrics: Mapping[str, float], card: str) -> None:
    """Put an evaluation's figures, and the card that shows them, into a bundle not yet in use."""
    manifest = msgspec.json.decode((directory / adapter.MANIFEST).read_bytes(), type=Manifest)
    (directory / "README.md").write_text(card)
    described = msgspec.structs.replace(manifest, metrics=dict(metrics))
    (directory / adapter.MANIFEST).write_bytes(_pretty(described))


def recipe_hash(encoded: bytes) -> str:
    """A short name for a recipe's content."""
    return hashlib.sha256(encoded).hexdigest()[:12]


def _pretty(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
