"""A bundle for other tools: as a Hugging Face folder, and as an artefact in OCI's image layout.

Sources: PEFT's checkpoint format and the Hub's model cards; OCI image-spec 1.1, image-layout.md and
manifest.md ("Guidelines for Artifact Usage"). Both are folders, for whoever uploads them: `hf
upload`, `oras copy --from-oci-layout`, `skopeo copy oci:…`.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

from proxy.protocol import adapter
from proxy.protocol.adapter import MANIFEST, Adapter
from proxy.protocol.signature import SIGNATURE
from trainer.errors import RegistryError

ARTEFACT = "application/vnd.headrace.adapter.v1"
_EMPTY = b"{}"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_TITLE = "org.opencontainers.image.title"


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """OCI content descriptor."""

    media_type: str
    digest: str
    size: int
    """Bytes."""
    annotations: dict[str, str] = {}
    artifact_type: str = ""


class OciManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """OCI image manifest, of an artefact."""

    schema_version: int = 2
    media_type: str = _MANIFEST_TYPE
    artifact_type: str = ARTEFACT
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str]


class OciIndex(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """OCI image index."""

    schema_version: int = 2
    media_type: str = "application/vnd.oci.image.index.v1+json"
    manifests: list[Descriptor]


def hugging_face(bundle: Path, directory: Path) -> Path:
    """Write the folder `directory`: PEFT's files, the card, and ours under `headrace/`.

    PEFT loads it onto the base model; the manifest's hashes hold for the files in both places.
    """
    read = adapter.read(bundle)
    _make(directory)
    (directory / "headrace").mkdir()
    for name in _names(bundle):
        at_the_top = name in (adapter.WEIGHTS, adapter.CONFIG, adapter.CARD)
        shutil.copyfile(
            bundle / name, directory / name if at_the_top else directory / "headrace" / name
        )
    if not (directory / adapter.CARD).exists():
        (directory / adapter.CARD).write_text(f"# {read.id}\n")
    return directory


def oci(bundle: Path, directory: Path) -> Path:
    """Write the image layout `directory`, with the bundle as its only artefact, tagged by its id:
    one layer a file, named as the tools do that copy them back (`oras pull`)."""
    read = adapter.read(bundle)
    _make(directory)
    (directory / "blobs" / "sha256").mkdir(parents=True)
    layers = [
        _blob(directory, (bundle / name).read_bytes(), "application/octet-stream", {_TITLE: name})
        for name in _names(bundle)
    ]
    config = _blob(directory, _EMPTY, "application/vnd.oci.empty.v1+json")
    manifest = OciManifest(config=config, layers=layers, annotations=_annotations(read))
    named = _blob(directory, msgspec.json.encode(manifest), _MANIFEST_TYPE)
    tagged = msgspec.structs.replace(
        named,
        annotations={"org.opencontainers.image.ref.name": read.id},
        artifact_type=ARTEFACT,
    )
    (directory / "index.json").write_bytes(msgspec.json.encode(OciIndex(manifests=[tagged])))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory


def _names(bundle: Path) -> list[str]:
    signature = [SIGNATURE] if (bundle / SIGNATURE).exists() else []
    return sorted([*adapter.files(bundle), MANIFEST, *signature])


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise RegistryError(f"{directory}: {error.strerror}; name a folder that is not") from error


def _blob(
    directory: Path, content: bytes, media_type: str, annotations: dict[str, str] | None = None
) -> Descriptor:
    hashed = hashlib.sha256(content).hexdigest()
    (directory / "blobs" / "sha256" / hashed).write_bytes(content)
    return Descriptor(
        media_type=media_type,
        digest=f"sha256:{hashed}",
        size=len(content),
        annotations=annotations or {},
    )


def _annotations(read: Adapter) -> dict[str, str]:
    said = {
        "org.opencontainers.image.created": read.manifest.created_at,
        "org.opencontainers.image.version": read.id,
        "org.opencontainers.image.base.name": read.manifest.base_model,
        "org.opencontainers.image.title": read.id,
    }
    return {name: value for name, value in said.items() if value}
