"""Small bundles with a lineage."""

from __future__ import annotations

from pathlib import Path

import msgspec

from proxy.protocol import adapter
from proxy.protocol.adapter import Lineage
from tests.engines import bundles


def bundle(directory: Path, id: str, learnt: list[str] | None = None, **said: str) -> Path:
    """A sealed bundle `<domain>-v<N>` that learnt from these exchanges; None: it does not say."""
    path = bundles.write(directory, id)
    if learnt is not None:
        (path / adapter.LINEAGE).write_bytes(msgspec.json.encode(Lineage(exchanges=learnt)))
    manifest = adapter.read_manifest(path)
    adapter.seal(path, msgspec.structs.replace(manifest, **said))
    return path
