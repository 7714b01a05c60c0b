"""Adapter bundles: whole, or refused with the name of the file that is not."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol import adapter
from proxy.protocol.adapter import (
    AdapterError,
    Canary,
    Manifest,
    read_champions,
    sha256,
    write_champions,
)

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


# ---------------------------------------------------------------- champions


@given(st.dictionaries(st.text(), st.text()))
def test_champions_are_read_as_they_were_written(champions):
    with TemporaryDirectory() as directory:
        write_champions(Path(directory), champions)

        assert read_champions(Path(directory)) == champions


def test_where_no_champion_was_written_there_is_none(tmp_path):
    assert read_champions(tmp_path) == {}


def test_new_champions_take_the_place_of_the_old_and_leave_nothing_else(tmp_path):
    write_champions(tmp_path, {"api": "api-v1", "bookings": "bookings-v1"})
    write_champions(tmp_path, {"api": "api-v2"})

    assert read_champions(tmp_path) == {"api": "api-v2"}
    assert [path.name for path in tmp_path.iterdir()] == ["champions.json"]


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_write_that_is_cut_off_leaves_the_old_champions(tmp_path, monkeypatch, step):
    write_champions(tmp_path, {"api": "api-v1"})
    monkeypatch.setattr(*CUT_OFF[step])

    with pytest.raises(OSError, match="power"):
        write_champions(tmp_path, {"api": "api-v2"})

    assert read_champions(tmp_path) == {"api": "api-v1"}


def _half(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError("no power")


def _none(source: Path, target: Path) -> None:
    raise OSError("no power")


CUT_OFF = {"write": (Path, "write_bytes", _half), "replace": (os, "replace", _none)}
"""What ends before it is done → what is patched."""


@pytest.mark.parametrize("content", [b"", b'{"api":', b"[]", b'{"api": 1}', b'{"api": "\xff"}'])
def test_a_broken_champion_file_is_named(tmp_path, content):
    (tmp_path / "champions.json").write_bytes(content)

    with pytest.raises(AdapterError, match=r"champions\.json"):
        read_champions(tmp_path)
