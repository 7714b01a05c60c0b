"""Bundles that the commands' tests share."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.protocol.adapter import Canary, Manifest
from trainer.registry import bundles


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A directory with two bundles, `api-v1` and `api-v2`."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "adapter_model.safetensors").write_bytes(b"w")
    config = b'{"peft_type": "LORA", "r": 16, "target_modules": ["q_proj"]}'
    (tmp_path / "weights" / "adapter_config.json").write_bytes(config)
    (tmp_path / "adapters").mkdir()
    names = ("base_model", "base_sha256", "tokenizer_sha256", "dataset_fingerprint")
    unsaid = dict.fromkeys((*names, "template_sha256", "weights_sha256"), "")
    adapters = tmp_path / "adapters"
    for id in ("api-v1", "api-v2"):
        manifest = msgspec.convert(
            {"id": id, "domain": "api", "format": "structured", **unsaid}, Manifest
        )
        canary = Canary([1], [2], [3])
        bundles.write(manifest, tmp_path / "weights", {"structured": ""}, canary, [], "", adapters)
    return adapters
