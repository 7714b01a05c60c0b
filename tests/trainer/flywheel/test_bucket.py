"""The loop with its registry in a bucket: registered and promoted there, followed from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("obstore", reason="needs the bucket extra")

from proxy.backends.settings import RegistrySettings
from proxy.protocol import adapter, champions
from proxy.protocol.champions import Alias, Candidate
from proxy.registry import Follower
from tests.engines import bundles
from tests.record.buckets import Bucket, bucket
from tests.trainer.flywheel import settings_files
from tests.trainer.flywheel.test_run import Heard, domain
from trainer.errors import FlywheelError
from trainer.flywheel import chronicle
from trainer.flywheel import run as flywheel
from trainer.registry.registry import Registry


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket whose endpoint and credentials the environment names."""
    with bucket() as made:
        named = made.options | {"endpoint_url": made.options["endpoint"]}
        for name, value in named.items():
            monkeypatch.setenv(f"AWS_{name.upper()}", value)
        yield made


def written(directory: Path, record: Path, base: Path, s3: Bucket, **more: object) -> Path:
    """flywheel.yaml with its registry in the bucket."""
    path = settings_files.write(directory, record, base, **more)
    settings = yaml.safe_load(path.read_text()) | {"registry": s3.url}
    path.write_text(yaml.safe_dump(settings))
    return path


def follow(s3: Bucket, directory: Path) -> None:
    """As a proxy does."""
    settings = RegistrySettings(url=s3.url, options=s3.options, every_s=1)
    Follower("$.backends.local", settings, directory, ["all"]).follow()


def test_a_run_puts_its_bundle_into_the_bucket_and_a_proxy_follows(s3, record, base, tmp_path):
    path = written(tmp_path / "trainer", record, base, s3, evaluation={"most": 3, "base": False})
    there = Registry(s3.url, s3.options)
    there.put(bundles.write(tmp_path / "others", "all-v7"))

    ended = flywheel.run(domain(path), Heard(), anyway=True)
    follow(s3, tmp_path / "proxy")

    assert (ended.outcome, there.ids()) == ("promoted", ["all-v7", "all-v8"])
    assert there.champions().serving == {"all": "all-v8"}
    assert there.history("all")[-1].reason == f"run {ended.run}, at once"
    assert champions.read(tmp_path / "proxy").serving == {"all": "all-v8"}
    assert adapter.read(tmp_path / "proxy" / "all-v8").manifest.run == ended.run
    assert not (tmp_path / "trainer" / "adapters" / champions.CHAMPIONS).exists()
    assert chronicle.status(domain(path)).champion == "all-v8"


def test_a_candidate_goes_step_by_step_by_the_champion_file_of_the_bucket(
    s3, record, base, tmp_path
):
    promotion = {"stages": [{"share": 0.25}], "shadow_pairs": 9, "shadow_share": 0.5}
    path = written(
        tmp_path / "trainer", record, base, s3, evaluation={"most": 3}, promotion=promotion
    )
    there = Registry(s3.url, s3.options)

    waiting = flywheel.run(domain(path), Heard(), anyway=True)
    follow(s3, tmp_path / "proxy")
    followed = champions.read(tmp_path / "proxy").domains["all"].candidate
    now = there.champions()
    there.change("all", Alias(), now.revision, "taken back by hand")
    again = flywheel.run(domain(path), Heard(), anyway=True)

    assert (waiting.outcome, waiting.run) == ("waiting", again.run)
    assert followed == now.domains["all"].candidate
    assert isinstance(followed, Candidate)
    assert (followed.adapter, followed.stage, followed.share) == ("all-v1", "shadow", 0.5)
    assert (again.outcome, again.reason) == ("rolled back", "taken back by hand")


def test_a_bucket_that_is_away_is_told_and_the_run_goes_on_later(
    s3, record, base, tmp_path, monkeypatch
):
    path = written(tmp_path, record, base, s3)
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    with pytest.raises(FlywheelError, match=r"127\.0\.0\.1:9"):
        flywheel.run(domain(path), Heard(), anyway=True)

    assert not list((tmp_path / "runs").glob("*/*/manifest.json"))
