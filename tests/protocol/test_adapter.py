"""Adapter bundles: whole, or refused with the name of the file that is not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.protocol import adapter
from proxy.protocol.adapter import AdapterError, Canary, Manifest, sha256

FILES = {
    "template.jinja": "{{ messages[0].content }} ⟂".encode(),
    "adapter_model.safetensors": b"\x00weights",
    "adapter_config.json": b'{"r": 16}',
    "canary.json": b'{"prompt":[1,2],"expected":[3],"base":[4]}',
}
MANIFEST = Manifest(
    id="api-v1",
    domain="api",
    format="structured",
    base_model="smollm2-135m-instruct",
    base_sha256="b",
    tokenizer_sha256="t",
    template_sha256=sha256(FILES["template.jinja"]),
    weights_sha256=sha256(FILES["adapter_model.safetensors"]),
    dataset_fingerprint="sha256:d",
    recipe=msgspec.Raw(b'{"seed":7}'),
    metrics={"seen/call exact": 0.5},
)


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A whole bundle."""
    path = tmp_path / "api-v1"
    path.mkdir()
    (path / "manifest.json").write_bytes(msgspec.json.encode(MANIFEST))
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    return path


# ---------------------------------------------------------------- bundles


def test_a_whole_bundle_is_read(bundle):
    read = adapter.read(bundle)

    assert (read.id, read.path, read.manifest) == ("api-v1", bundle, MANIFEST)
    assert read.template == "{{ messages[0].content }} ⟂"
    assert read.canary == Canary([1, 2], [3], [4])


def test_what_a_later_version_adds_to_a_manifest_is_passed_over(bundle):
    later = msgspec.json.decode(msgspec.json.encode(MANIFEST)) | {"signature": "x"}
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(later))

    assert adapter.read(bundle).manifest == MANIFEST


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_a_missing_file_is_named_with_the_remedy(bundle, name):
    (bundle / name).unlink()

    with pytest.raises(AdapterError, match=rf"{name}: No such file.*again"):
        adapter.read(bundle)


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_a_torn_file_is_named(bundle, name):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(AdapterError, match=name):
        adapter.read(bundle)


@pytest.mark.parametrize("name", ["template.jinja", "adapter_model.safetensors"])
def test_a_changed_file_is_named_with_the_remedy(bundle, name):
    (bundle / name).write_bytes(FILES[name] + b" ")

    with pytest.raises(
        AdapterError, match=rf"{name} is not the file that its manifest names.*again"
    ):
        adapter.read(bundle)


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_a_file_of_other_bytes_is_named(bundle, name):
    (bundle / name).write_bytes(b'{"\xff": "\xff"}')

    with pytest.raises(AdapterError, match=name):
        adapter.read(bundle)


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(AdapterError, match=r"api-v9/manifest\.json: No such file"):
        adapter.read(tmp_path / "api-v9")


@pytest.mark.parametrize("id", ["", "../api", "/etc", "API-v1", "api v1", ".hidden", "a" * 64])
def test_an_id_that_is_no_plain_name_is_refused(bundle, id):
    renamed = msgspec.structs.replace(MANIFEST, id=id)
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(renamed))

    with pytest.raises(AdapterError, match=r"manifest\.json.*is no adapter id"):
        adapter.read(bundle)


def test_a_manifest_that_lacks_a_field_is_told_with_the_field(bundle):
    (bundle / "manifest.json").write_bytes(b'{"id": "api-v1"}')

    with pytest.raises(AdapterError, match=r"manifest\.json.*missing required field `domain`"):
        adapter.read(bundle)
