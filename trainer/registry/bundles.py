"""Writing a bundle: in one step, under an id that was never used."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from proxy.protocol import adapter
from proxy.protocol.adapter import Canary, Lineage, Manifest
from proxy.protocol.parity import PARITY, Sample
from trainer.errors import TrainingError
from trainer.servable import faults

RECORDED = (
    *("torch", "transformers", "peft", "tokenizers", "gguf", "bfcl-eval"),
    *("bitsandbytes", "trl", "unsloth"),
)


def next_id(domain: str, taken: Iterable[str]) -> str:
    """`<domain>-v<N>`, one higher than the highest that is taken: ids are never used twice."""
    matches = (re.fullmatch(rf"{re.escape(domain)}-v(\d+)", name) for name in taken)
    return f"{domain}-v{max((int(match[1]) for match in matches if match), default=0) + 1}"


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
    lineage: Lineage | None = None,
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
    if lineage is not None:
        (staged / adapter.LINEAGE).write_bytes(msgspec.json.encode(lineage))
    (staged / adapter.CARD).write_text(card)
    sealed = msgspec.structs.replace(
        manifest,
        weights_sha256=adapter.sha256((staged / adapter.WEIGHTS).read_bytes()),
        template_sha256=adapter.sha256(templates[manifest.format].encode()),
        formats={format: adapter.sha256(text.encode()) for format, text in further.items()},
    )
    adapter.seal(staged, sealed)
    os.replace(staged, directory / manifest.id)
    return directory / manifest.id


def _require_servable(path: Path) -> None:
    found = faults(msgspec.json.decode(path.read_bytes(), type=dict[str, object]))
    if found:
        raise TrainingError(f"{path}: {'; '.join(found)}; train it anew with a recipe of ours")


def describe(directory: Path, metrics: Mapping[str, float], card: str) -> None:
    """Put an evaluation's figures, and the card that shows them, into a bundle not yet in use."""
    manifest = adapter.read_manifest(directory)
    (directory / adapter.CARD).write_text(card)
    adapter.seal(directory, msgspec.structs.replace(manifest, metrics=dict(metrics)))
