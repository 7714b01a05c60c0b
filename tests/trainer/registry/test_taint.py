"""Erased exchanges taint what learnt from them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.protocol import tombstones
from proxy.protocol.tombstones import Tombstone
from tests.trainer.examples import row
from tests.trainer.registry.examples import bundle
from trainer import dataset
from trainer.dataset import Dataset
from trainer.registry.registry import Registry
from trainer.registry.taint import tainted


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record of which `chatcmpl-1` and `chatcmpl-2` were erased."""
    folder = tmp_path / "record" / "tombstones"
    folder.mkdir(parents=True)
    ids = ("chatcmpl-1", "chatcmpl-2")
    erased = [Tombstone(id=id, tenant="t", erased_at=0.0, reasons=["caller"]) for id in ids]
    (folder / "1.jsonl").write_bytes(tombstones.encode(erased))
    return tmp_path / "record"


def test_who_learnt_from_an_erased_exchange_is_tainted(
    registry: Registry, record: Path, tmp_path: Path
):
    registry.put(bundle(tmp_path / "made", "geo-v1", ["chatcmpl-0", "chatcmpl-1", "chatcmpl-2"]))
    registry.put(bundle(tmp_path / "made", "geo-v2", ["chatcmpl-0"]))
    registry.appoint("geo-v1", "before anything was erased")

    (one,) = tainted(registry, [record])

    assert (one.id, one.domain, one.taint.exchanges, one.serving) == ("geo-v1", "geo", 2, ["geo"])
    assert list(registry.taints()) == ["geo-v1"]


def test_a_taint_stays_where_the_tombstones_went(registry: Registry, record: Path, tmp_path: Path):
    registry.put(bundle(tmp_path / "made", "geo-v1", ["chatcmpl-1"]))
    first = tainted(registry, [record])

    assert tainted(registry, []) == first
    assert first[0].serving == []


def test_where_nothing_was_erased_nothing_is_tainted(registry: Registry, tmp_path: Path):
    registry.put(bundle(tmp_path / "made", "geo-v1", ["chatcmpl-1"]))

    assert tainted(registry, [tmp_path / "no record"]) == []


def test_a_bundle_from_before_lineage_is_judged_by_its_dataset(
    registry: Registry, record: Path, tmp_path: Path
):
    learnt = msgspec.structs.replace(row(), exchange="chatcmpl-1")
    made = Dataset(train=[learnt], validation=[], seen=[], unseen=[], dropped={})
    dataset.write(made, tmp_path / "dataset")
    old = bundle(tmp_path / "made", "geo-v1", dataset_fingerprint=made.fingerprint)
    registry.put(old)

    assert tainted(registry, [record]) == []
    assert [one.id for one in tainted(registry, [record], [tmp_path / "dataset"])] == ["geo-v1"]
