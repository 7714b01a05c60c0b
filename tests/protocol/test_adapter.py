"""Adapter bundles: whole, or refused with the name of the file that is not."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from proxy.protocol import adapter
from proxy.protocol.adapter import AdapterError, Canary, Manifest, sha256
from proxy.protocol.calibration import Calibration
from proxy.protocol.signature import Trusted, generate, sign

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


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "canary.json"])
def test_a_link_in_a_bundle_is_refused(bundle, tmp_path, name):
    (bundle / name).rename(tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)

    with pytest.raises(AdapterError, match=f"{name}: a link, and a bundle holds files"):
        adapter.read(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "canary.json"])
def test_a_pipe_in_a_bundle_is_refused_and_not_waited_for(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)

    with pytest.raises(AdapterError, match=f"{name}: no file, but a directory, a pipe"):
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


# ---------------------------------------------------------------- all files, signed


@pytest.fixture
def sealed(bundle) -> Path:
    """A bundle whose manifest names every file."""
    (bundle / "README.md").write_text("# A card")
    adapter.seal(bundle, MANIFEST)
    return bundle


def test_a_manifest_names_every_file_but_itself_and_the_signature(sealed):
    (sealed / "signature.json").write_text("{}")

    assert adapter.read(sealed).manifest.files == {
        name: sha256((sealed / name).read_bytes()) for name in (*FILES, "README.md")
    }


@pytest.mark.parametrize("name", [*FILES, "README.md"])
def test_every_file_that_the_manifest_names_is_proven(sealed, name):
    (sealed / name).write_bytes((sealed / name).read_bytes() + b"\n")

    with pytest.raises(AdapterError, match=f"{name} is not the file that its manifest names"):
        adapter.read(sealed)


def test_a_file_that_the_manifest_does_not_name_is_refused(sealed):
    (sealed / "adapter_model.bin").write_bytes(b"pickle")

    with pytest.raises(AdapterError, match=r"adapter_model\.bin is not named by its manifest"):
        adapter.read(sealed)


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/b", "", ".hidden", "manifest.json"])
def test_a_manifest_that_names_what_is_no_file_of_a_bundle_is_refused(bundle, name):
    named = msgspec.structs.replace(MANIFEST, files={name: "0" * 64})
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(named))

    with pytest.raises(AdapterError, match="is no file of a bundle"):
        adapter.read(bundle)


def test_a_calibration_is_put_into_a_sealed_bundle(sealed):
    calibration = Calibration(reference="labels", dataset_fingerprint="d", steps=[])

    adapter.write_calibration(sealed, calibration)

    assert adapter.read(sealed).calibration == calibration


def test_a_signed_bundle_is_read_where_its_key_is_trusted(sealed):
    key = generate()
    adapter.sign(sealed, key.private)

    assert adapter.read(sealed, Trusted([key.public])).id == "api-v1"


def test_an_old_bundle_is_sealed_by_signing_it(bundle):
    key = generate()
    adapter.sign(bundle, key.private)

    assert adapter.read(bundle, Trusted([key.public])).manifest.files.keys() == FILES.keys()


def test_an_unsigned_bundle_is_refused_with_the_remedy(sealed):
    with pytest.raises(
        AdapterError, match="is not signed; sign it with `headrace-trainer registry"
    ):
        adapter.read(sealed, Trusted([generate().public]))


def test_a_bundle_that_was_sealed_again_is_no_longer_signed(sealed):
    key = generate()
    adapter.sign(sealed, key.private)
    (sealed / "canary.json").write_bytes(b'{"prompt":[],"expected":[],"base":[]}')
    adapter.seal(sealed, MANIFEST)

    with pytest.raises(AdapterError, match=r"signature\.json: .*of another manifest; sign it"):
        adapter.read(sealed, Trusted([key.public]))


def test_a_signature_over_a_manifest_that_names_not_all_files_is_refused(bundle):
    key = generate()
    signature = sign((bundle / "manifest.json").read_bytes(), key.private)
    (bundle / "signature.json").write_bytes(msgspec.json.encode(signature))

    with pytest.raises(AdapterError, match="does not name all files"):
        adapter.read(bundle, Trusted([key.public]))
