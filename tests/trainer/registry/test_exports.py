"""Bundles as other tools have them: PEFT loads one, and an OCI layout holds the other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the train extra")

import msgspec
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from proxy.protocol import adapter
from tests.trainer.bases import tiny
from tests.trainer.registry.examples import bundle
from trainer.errors import RegistryError
from trainer.registry import exports

SHIPPED = Path(__file__).parents[3] / "adapters" / "api-v1"


def test_peft_loads_a_hugging_face_folder_and_answers_as_before(tmp_path: Path):
    tiny(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    trained = get_peft_model(
        base, LoraConfig(r=8, target_modules=["q_proj"], init_lora_weights=False)
    )
    made = bundle(tmp_path / "made", "geo-v1")
    trained.save_pretrained(made)
    hashed = {"weights_sha256": adapter.hash_file(made / adapter.WEIGHTS)}
    adapter.seal(made, msgspec.structs.replace(adapter.read_manifest(made), **hashed))

    folder = exports.hugging_face(made, tmp_path / "folder")

    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        said = PeftModel.from_pretrained(fresh, folder)(ids).logits
        assert torch.equal(said, trained(ids).logits)
        with trained.disable_adapter():
            assert not torch.equal(said, trained(ids).logits)


def test_a_hugging_face_folder_holds_every_file(tmp_path: Path):
    folder = exports.hugging_face(SHIPPED, tmp_path / "folder")

    top = {path.name for path in folder.iterdir()}
    assert top == {"README.md", "adapter_config.json", "adapter_model.safetensors", "headrace"}
    names = {path.name for path in SHIPPED.iterdir()}
    assert {path.name for path in folder.rglob("*") if path.is_file()} == names
    assert (folder / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")


def test_an_oci_layout_names_every_blob_by_its_hash(tmp_path: Path):
    made = bundle(tmp_path, "geo-v1", created_at="2026-11-01T10:00:00+00:00")
    layout = exports.oci(made, tmp_path / "layout")

    (described,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(layout, described))
    assert described["annotations"] == {"org.opencontainers.image.ref.name": "geo-v1"}
    assert manifest["artifactType"] == "application/vnd.headrace.adapter.v1"
    assert blob(layout, manifest["config"]) == b"{}"
    files = {
        one["annotations"]["org.opencontainers.image.title"]: blob(layout, one)
        for one in manifest["layers"]
    }
    assert files == {path.name: path.read_bytes() for path in made.iterdir()}
    assert (layout / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'


def blob(layout: Path, described: dict[str, str]) -> bytes:
    """What a descriptor names, proven."""
    kind, hashed = described["digest"].split(":")
    content = (layout / "blobs" / kind / hashed).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (hashed, described["size"])
    return content


@pytest.mark.parametrize("export", [exports.hugging_face, exports.oci])
def test_nothing_is_written_over(tmp_path: Path, export):
    made = bundle(tmp_path / "made", "geo-v1")

    with pytest.raises(RegistryError, match="File exists; name a folder that is not"):
        export(made, tmp_path / "made")
