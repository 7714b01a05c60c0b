"""Bundles in a directory and in a bucket (a real server's): the same promises of both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.protocol import adapter
from proxy.protocol.adapter import AdapterError
from proxy.protocol.bucket import BucketStore
from proxy.protocol.bundles import (
    Bundles,
    BundleTaken,
    DirectoryBundles,
    index,
    open_bundles,
)
from proxy.protocol.signature import Trusted, generate
from tests.engines import bundles as examples
from tests.record.buckets import Bucket, bucket


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture
def s3(server: Bucket) -> Bucket:
    return server.empty()


@pytest.fixture(params=["directory", "bucket"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Bundles:
    """An empty one of each kind."""
    if request.param == "directory":
        return open_bundles(tmp_path / "there")
    made: Bucket = request.getfixturevalue("s3")
    return open_bundles(made.url, made.options)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sealed bundle, `geo-v1`."""
    path = examples.write(tmp_path / "made", "geo-v1")
    adapter.seal(path, adapter.read(path).manifest)
    return path


def content(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def test_what_is_put_is_got_to_the_byte(there: Bundles, bundle: Path, tmp_path: Path):
    id = there.put(bundle)

    got = there.get(id, tmp_path / "got")

    assert (id, got, there.ids()) == ("geo-v1", tmp_path / "got" / "geo-v1", ["geo-v1"])
    assert content(got) == content(bundle)
    assert there.manifest(id) == adapter.read(bundle).manifest
    assert there.file(id, "canary.json") == (bundle / "canary.json").read_bytes()
    assert there.file(id, "lineage.json") is None
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["geo-v1"]


def test_where_there_is_none_there_is_none(there: Bundles, tmp_path: Path):
    assert there.ids() == []
    for ask in (there.manifest, there.check, lambda id: there.get(id, tmp_path)):
        with pytest.raises(AdapterError, match="geo-v1"):
            ask("geo-v1")


def test_the_same_bundle_again_changes_nothing(there: Bundles, bundle: Path, tmp_path: Path):
    there.put(bundle)
    again = shutil.copytree(bundle, tmp_path / "again" / "geo-v1")

    assert there.put(again) == "geo-v1"
    assert content(there.get("geo-v1", tmp_path / "got")) == content(bundle)


def test_another_bundle_of_the_same_id_is_refused(there: Bundles, bundle: Path, tmp_path: Path):
    there.put(bundle)
    other = shutil.copytree(bundle, tmp_path / "other" / "geo-v1")
    (other / "canary.json").write_bytes(b'{"prompt":[],"expected":[],"base":[]}')
    adapter.seal(other, adapter.read_manifest(other))

    with pytest.raises(BundleTaken, match=r"other canary\.json, manifest\.json; bundles do not"):
        there.put(other)

    assert content(there.get("geo-v1", tmp_path / "got")) == content(bundle)


def test_a_torn_bundle_is_not_put(there: Bundles, bundle: Path):
    (bundle / "adapter_model.safetensors").write_bytes(b"")

    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors"):
        there.put(bundle)

    assert there.ids() == []


def test_what_a_link_in_an_old_bundle_leads_to_is_not_put(there: Bundles, tmp_path: Path):
    """Its manifest names neither the card nor the lineage: anything could be behind them."""
    secret, old = tmp_path / "id_rsa", examples.write(tmp_path / "mine", "geo-v1")
    secret.write_text("-----BEGIN")
    (old / "README.md").unlink(missing_ok=True)
    (old / "README.md").symlink_to(secret)

    with pytest.raises(AdapterError, match="a link, and a bundle holds files"):
        there.put(old)
    with pytest.raises(AdapterError, match="a link, and a bundle holds files"):
        DirectoryBundles(old.parent).file("geo-v1", "README.md")

    assert there.ids() == []


def test_an_old_bundle_is_put_and_got(there: Bundles, tmp_path: Path):
    old = examples.write(tmp_path / "old", "geo-v1")

    there.put(old)

    assert content(there.get("geo-v1", tmp_path / "got")) == content(old)


def test_what_is_there_already_is_found_whole_and_left_alone(
    there: Bundles, bundle: Path, tmp_path: Path
):
    there.put(bundle)
    got = there.get("geo-v1", tmp_path / "got")
    seen = (got / "manifest.json").stat().st_ino

    there.get("geo-v1", tmp_path / "got")

    assert (got / "manifest.json").stat().st_ino == seen


def test_what_is_there_and_is_another_is_refused(there: Bundles, bundle: Path, tmp_path: Path):
    there.put(bundle)
    got = there.get("geo-v1", tmp_path / "got")
    (got / "template.jinja").write_text("changed")

    with pytest.raises(AdapterError, match=r"template\.jinja"):
        there.get("geo-v1", tmp_path / "got")


@pytest.mark.parametrize("id", ["../geo-v1", "", "GEO", "/etc"])
def test_a_path_is_no_id(there: Bundles, id: str, tmp_path: Path):
    with pytest.raises(AdapterError, match="is no adapter id"):
        there.get(id, tmp_path)


def test_unsigned_and_foreign_bundles_are_not_got_where_a_key_is_demanded(
    there: Bundles, bundle: Path, tmp_path: Path
):
    ours, theirs = generate(), generate()
    adapter.sign(bundle, ours.private)
    there.put(bundle)
    there.put(examples.write(tmp_path / "made", "geo-v2"))

    with pytest.raises(AdapterError, match="is signed by"):
        there.get("geo-v1", tmp_path / "got", Trusted([theirs.public]))
    with pytest.raises(AdapterError, match="is not signed"):
        there.get("geo-v2", tmp_path / "got", Trusted([ours.public]))
    assert list((tmp_path).glob("got/*")) == []

    there.get("geo-v1", tmp_path / "got", Trusted([ours.public]))


# ---------------------------------------------------------------- a bucket alone


def test_each_content_is_in_a_bucket_once(s3: Bucket, bundle: Path, tmp_path: Path):
    there = open_bundles(s3.url, s3.options)
    there.put(bundle)
    there.put(examples.write(tmp_path / "made", "geo-v2"))

    blobs = there.store.paths("blobs")

    hashes = {f"blobs/{file.sha256}" for file in index(bundle).files.values()}
    assert hashes <= set(blobs)
    # Template and configuration are those of the first.
    assert len(blobs) == len(hashes) + 3


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "manifest.json", "template.jinja"])
def test_a_file_that_was_changed_in_the_bucket_is_not_got(
    s3: Bucket, bundle: Path, tmp_path: Path, name: str
):
    there = open_bundles(s3.url, s3.options)
    there.put(bundle)
    blob = f"blobs/{index(bundle).files[name].sha256}"
    store = BucketStore(s3.url, s3.options)
    held = store.read(blob, 10**6)
    store.swap(blob, held.content[:-1] + b"X", held.tag)

    with pytest.raises(AdapterError, match=f"is not the file {name} of geo-v1 any more"):
        there.get("geo-v1", tmp_path / "got")

    assert list((tmp_path / "got").iterdir()) == []


def test_an_index_under_another_name_is_not_got(s3: Bucket, bundle: Path, tmp_path: Path):
    there = open_bundles(s3.url, s3.options)
    there.store.create("bundles/geo-v9.json", msgspec.json.encode(index(bundle)))
    there.put(bundle)

    with pytest.raises(AdapterError, match="holds geo-v1"):
        there.get("geo-v9", tmp_path / "got")


FILE = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"files": {"../x": FILE}}, "is no file of a bundle"),
        ({"files": {"x": FILE | {"size": 2**40}}}, "are no bundle"),
        ({"files": {f"x{n}": FILE for n in range(65)}}, "are no bundle"),
        ({"files": {"x": FILE | {"sha256": "../../x"}}}, "sha256"),
        ({"version": 2, "files": {}}, "a newer release wrote it"),
        ([], "Expected `object`"),
    ],
)
def test_a_hostile_index_is_refused(s3: Bucket, tmp_path: Path, content: Any, why: str):
    there = open_bundles(s3.url, s3.options)
    there.store.create("bundles/geo-v1.json", msgspec.json.encode(content))

    with pytest.raises(AdapterError, match=rf"bundles/geo-v1\.json: .*{why}"):
        there.get("geo-v1", tmp_path / "got")


# ---------------------------------------------------------------- a directory alone


def test_a_bundle_that_lies_in_its_directory_is_put_as_it_is(bundle: Path):
    assert DirectoryBundles(bundle.parent).put(bundle) == "geo-v1"


def test_a_directory_of_another_name_is_not_its_bundle(bundle: Path, tmp_path: Path):
    bundle.rename(bundle.with_name("geo-v7"))

    with pytest.raises(AdapterError, match="geo-v7 holds geo-v1; name the directory so"):
        DirectoryBundles(bundle.parent).check("geo-v7")
