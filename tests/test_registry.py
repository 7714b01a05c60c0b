"""Following a registry in a bucket (a real server's): what it names comes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.backends.settings import EmbeddedSettings, RegistrySettings
from proxy.errors import BadConfig
from proxy.protocol import adapter, champions
from proxy.protocol.adapter import AdapterError
from proxy.protocol.bucket import BucketStore
from proxy.protocol.bundles import Bundles, open_bundles
from proxy.protocol.champions import Alias, Candidate, appoint, change
from proxy.protocol.signature import Trusted, generate
from proxy.registry import Follower, trusted
from tests.engines import bundles
from tests.engines.farm import farm
from tests.engines.pooled import pooled
from tests.record.buckets import Bucket, bucket
from tests.test_rollout import SlowVllm, is_done


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture
def s3(server: Bucket) -> Bucket:
    return server.empty()


@pytest.fixture
def there(s3: Bucket, tmp_path: Path) -> Bundles:
    """A registry with `geo-v1` to `geo-v4` and `api-v1`."""
    made = open_bundles(s3.url, s3.options)
    for id in ("geo-v1", "geo-v2", "geo-v3", "geo-v4", "api-v1"):
        made.put(bundles.write(tmp_path / "made", id))
    return made


def follower(s3: Bucket, directory: Path, **more: object) -> Follower:
    settings = RegistrySettings(url=s3.url, options=s3.options, every_s=0.1)
    return Follower("$.backends.local", settings, directory, ["geo"], **more)


def held(directory: Path) -> set[str]:
    return {path.parent.name for path in directory.glob("*/manifest.json")}


def test_what_the_domains_name_comes_and_nothing_else(s3: Bucket, there: Bundles, tmp_path: Path):
    tried = Candidate(adapter="geo-v3")
    alias = Alias(champion="geo-v2", previous="geo-v1", candidate=tried)
    change(there.store, "geo", alias, 0, "try it")
    appoint(there.store, "api", "api-v1", "of another proxy")

    follower(s3, tmp_path / "adapters", canaries=["geo-v4"]).follow()

    assert held(tmp_path / "adapters") == {"geo-v1", "geo-v2", "geo-v3", "geo-v4"}
    assert champions.read(tmp_path / "adapters") == champions.read(there.store)
    assert adapter.read(tmp_path / "adapters" / "geo-v2").id == "geo-v2"


def test_what_is_named_no_more_goes_with_the_change_after(
    s3: Bucket, there: Bundles, tmp_path: Path
):
    ours = tmp_path / "adapters"
    bundles.write(ours, "geo-v9")
    following = follower(s3, ours)
    held_then = []
    for id in ("geo-v1", "geo-v2", "geo-v3", "geo-v4"):
        appoint(there.store, "geo", id, "better")
        following.follow()
        held_then.append(held(ours))

    # `geo-v9` is nowhere else: it is not ours to remove.
    assert held_then == [
        {"geo-v9", "geo-v1"},
        {"geo-v9", "geo-v1", "geo-v2"},
        {"geo-v9", "geo-v1", "geo-v2", "geo-v3"},
        {"geo-v9", "geo-v2", "geo-v3", "geo-v4"},
    ]


def test_where_nothing_changed_nothing_is_written(s3: Bucket, there: Bundles, tmp_path: Path):
    appoint(there.store, "geo", "geo-v1", "first")
    following = follower(s3, tmp_path / "adapters")
    following.follow()
    (tmp_path / "adapters" / "champions.json").write_text("{}")

    following.follow()

    assert (tmp_path / "adapters" / "champions.json").read_text() == "{}"


def test_an_empty_registry_changes_nothing(s3: Bucket, tmp_path: Path):
    follower(s3, tmp_path / "adapters").follow()

    assert not (tmp_path / "adapters").exists()


def test_a_bundle_that_was_changed_in_the_bucket_keeps_the_champions(
    s3: Bucket, there: Bundles, tmp_path: Path
):
    appoint(there.store, "geo", "geo-v1", "first")
    following = follower(s3, tmp_path / "adapters")
    following.follow()
    store = BucketStore(s3.url, s3.options)
    blob = f"blobs/{adapter.sha256(b'geo-v2')}"
    store.swap(blob, b"geo-v7", store.read(blob, 100).tag)
    appoint(there.store, "geo", "geo-v2", "better")

    with pytest.raises(AdapterError, match=r"is not the file adapter_model\.safetensors of geo"):
        following.follow()

    assert champions.read(tmp_path / "adapters").serving == {"geo": "geo-v1"}
    assert held(tmp_path / "adapters") == {"geo-v1"}


def test_an_unsigned_bundle_keeps_the_champions(s3: Bucket, there: Bundles, tmp_path: Path):
    appoint(there.store, "geo", "geo-v1", "first")

    with pytest.raises(AdapterError, match="is not signed"):
        follower(s3, tmp_path / "adapters", trusted=Trusted([generate().public])).follow()

    assert champions.read(tmp_path / "adapters").serving == {}


async def test_a_bucket_that_is_away_is_told_once_and_when_it_is_back(tmp_path: Path):
    with bucket() as s3, capture_logs() as logs:
        appoint(BucketStore(s3.url, s3.options), "geo", "geo-v1", "first")
        open_bundles(s3.url, s3.options).put(bundles.write(tmp_path / "made", "geo-v1"))
        following = follower(s3, tmp_path / "adapters")
        s3.stop()
        await following.look()
        await following.look()
        s3.start()
        await following.look()

    events = [entry["event"] for entry in logs]
    assert events == ["registry_not_followed", "registry_followed", "registry_followed_again"]
    assert champions.read(tmp_path / "adapters").serving == {"geo": "geo-v1"}


def test_a_url_that_is_none_keeps_the_proxy_from_starting(tmp_path: Path):
    with pytest.raises(BadConfig, match=r"\$\.backends\.local\.registry: s4://nowhere"):
        Follower("$.backends.local", RegistrySettings(url="s4://nowhere"), tmp_path, ["geo"])


def test_a_key_that_is_none_keeps_the_proxy_from_starting():
    with pytest.raises(BadConfig, match=r"\$\.backends\.local\.signed_by: a public key is 32 byt"):
        trusted("$.backends.local", EmbeddedSettings(base_model="m", signed_by=["no key"]))


async def test_a_proxy_serves_what_the_registry_names_without_a_restart(s3: Bucket, tmp_path: Path):
    there, key = open_bundles(s3.url, s3.options), generate()
    for id in ("chat-v1", "chat-v2"):
        bundle = bundles.write(tmp_path / "made", id)
        adapter.sign(bundle, key.private)
        there.put(bundle)
    appoint(there.store, "chat", "chat-v1", "first")
    options = ", ".join(f"{name}: {value!r}" for name, value in s3.options.items())
    registry = f"registry: {{url: {s3.url!r}, options: {{{options}}}, every_s: 0.1}}"
    more = f", {registry}, signed_by: ['{key.public}']"

    with capture_logs() as logs:
        async with (
            farm(SlowVllm, machines=1) as (machine,),
            pooled(tmp_path, "vllm", [machine], adapter=None, more=more) as proxy,
        ):
            first = await proxy.ask("Who are you?")
            appoint(there.store, "chat", "chat-v2", "better")
            await proxy.until(lambda told: is_done(logs))
            second = await proxy.ask("Who are you?")

    assert (first.is_whole, second.is_whole) == (True, True)
    assert [one.attempts[0].adapter for one in proxy.recorded()] == ["chat-v1", "chat-v2"]
