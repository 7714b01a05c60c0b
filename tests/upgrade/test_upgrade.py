"""What every earlier release left on disks is still read; what a newer one left is refused.

Each folder `v…` was written by the release of that name, and is never written again.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import zstandard

from proxy import config
from proxy.errors import BadConfig
from proxy.protocol import adapter, champions, segments
from proxy.protocol.adapter import AdapterError
from proxy.protocol.bundles import DirectoryBundles
from proxy.protocol.exchange import NewerRecord
from proxy.protocol.parquet import Rows
from proxy.protocol.signature import Trusted, generate
from proxy.record.compact import Retention, compact
from proxy.record.erase import Choice, erase
from proxy.record.query import opened
from tests.record.examples import exchange, feedback, shadowed, shelf, write
from tests.upgrade.make import KEY
from trainer import dataset, recipe
from trainer.errors import DatasetError
from trainer.recipe.sources import ExchangesSettings
from trainer.sources.base import Skips
from trainer.sources.exchanges import ExchangesSource

HERE = Path(__file__).parent
RELEASES = sorted(path.name for path in HERE.glob("v*"))


@pytest.fixture(params=RELEASES)
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a release left."""
    return shutil.copytree(HERE / request.param, tmp_path / "left")


def test_there_is_something_to_be_read():
    assert "v0.1" in RELEASES


# ---------------------------------------------------------------- the record


def test_records_are_read_in_parquet_and_in_segments_without_what_was_erased(left: Path):
    there = shelf(left / "record")

    found = {one.id: one for one in there.exchanges()}
    assert set(found) == {f"chatcmpl-{n}" for n in (1, 2, 4, 5)}
    assert found["chatcmpl-1"].attempts[0].answer.tool_calls[0].function.name == "ping"
    assert bytes(found["chatcmpl-4"].request).startswith(b'{"model":"gpt-4o"')
    assert found["chatcmpl-5"].assigned == "canary:api-v2"
    assert [one.outcome for one in found["chatcmpl-5"].tool_results] == ["ok"]
    assert sorted(one.exchange for one in there.feedback()) == ["chatcmpl-1", "chatcmpl-4"]
    assert sorted(one.exchange for one in there.shadows()) == ["chatcmpl-2", "chatcmpl-4"]


def test_records_are_compacted_beside_new_ones(left: Path):
    write(left / "record", exchange("chatcmpl-new"))

    compact(shelf(left / "record"), Retention())

    with opened(shelf(left / "record")) as database:
        found = database.sql("SELECT id FROM exchanges ORDER BY id").fetchall()
    assert [id for (id,) in found] == [f"chatcmpl-{n}" for n in (1, 2, 4, 5, "new")]


def test_sealed_records_are_opened_with_their_key(left: Path, tmp_path: Path):
    (tmp_path / "key").write_text(KEY)
    keys = {"first": str(tmp_path / "key")}
    settings = ExchangesSettings(directory=str(left / "record" / "sealed"), keys=keys)

    (row,) = ExchangesSource(settings, Skips()).rows()

    assert row.exchange == "chatcmpl-6"


def test_records_become_rows(left: Path):
    settings, skips = ExchangesSettings(directory=str(left / "record")), Skips()

    rows = list(ExchangesSource(settings, skips).rows())

    assert [row.exchange for row in rows] == [f"chatcmpl-{n}" for n in (1, 2, 4, 5)]
    assert {row.functions[0].name for row in rows} == {"ping"}
    assert not skips


# ---------------------------------------------------------------- bundles and champions


def test_bundles_are_read_and_kept(left: Path, tmp_path: Path):
    bundle = adapter.read(left / "adapters" / "api-v1")

    assert (bundle.id, bundle.templates) == ("api-v1", {"structured": "{{ s }}", "cep": "{{ c }}"})
    assert bundle.parity[0].ids == [1, 2]
    assert DirectoryBundles(tmp_path / "registry").put(bundle.path) == "api-v1"


def test_bundles_are_signed_as_new_ones_are(left: Path):
    key, bundle = generate(), left / "adapters" / "api-v1"

    adapter.sign(bundle, key.private)

    assert adapter.read(bundle, Trusted([key.public])).manifest.layout == adapter.LAYOUT


def test_champions_are_read_and_changed(left: Path):
    assert champions.read(left / "adapters").serving == {"api": "api-v1"}

    champions.appoint(left / "adapters", "api", "api-v2", "after the upgrade")

    assert champions.read(left / "adapters").domains["api"].previous == "api-v1"


# ---------------------------------------------------------------- settings and datasets


@pytest.mark.parametrize("path", sorted(HERE.glob("v*/routes-*.yaml")), ids=str)
def test_routes_are_followed(path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("KEY", "HEADRACE_KEY"):
        monkeypatch.setenv(name, "k" * 16)

    assert config.load(path).domains


@pytest.mark.parametrize("path", sorted(HERE.glob("v*/recipe-*.yaml")), ids=str)
def test_recipes_are_followed(path: Path):
    assert recipe.read(path).sources


def test_datasets_are_read_and_asked(left: Path):
    read = dataset.read(left / "dataset")

    (fate,) = dataset.why(left / "dataset", "chatcmpl-1")
    assert ([row.exchange for row in read.train], fate.step) == (["chatcmpl-1"], "train")


# ---------------------------------------------------------------- what comes after us


def test_a_newer_bundle_is_refused(left: Path):
    bundle = left / "adapters" / "api-v1"
    newer = msgspec.json.decode((bundle / "manifest.json").read_bytes()) | {"layout": 3}
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(newer))

    with pytest.raises(AdapterError, match=r"manifest\.json was written by a newer.*upgrade"):
        adapter.read(bundle)


def test_newer_champions_are_refused_and_stay(left: Path):
    file = left / "adapters" / "champions.json"
    file.write_text('{"version": 3, "domains": {"api": ["api-v1"]}}')

    with pytest.raises(AdapterError, match=r"champions\.json was written by a newer.*upgrade"):
        champions.appoint(left / "adapters", "api", "api-v2", "too old")

    assert file.read_text() == '{"version": 3, "domains": {"api": ["api-v1"]}}'


def test_a_newer_dataset_is_refused(left: Path):
    manifest = left / "dataset" / "manifest.json"
    newer = msgspec.json.decode(manifest.read_bytes()) | {"layout": 3}
    manifest.write_bytes(msgspec.json.encode(newer))

    with pytest.raises(DatasetError, match=r"manifest\.json was written by a newer.*upgrade"):
        dataset.read(left / "dataset")


def test_newer_routes_are_refused(left: Path):
    path = left / "routes-shipped.yaml"
    path.write_text(path.read_text().replace("version: 1", "version: 2"))

    with pytest.raises(BadConfig, match=r"routes-shipped\.yaml:3.*version.*known are: 1"):
        config.load(path)


FRAMES = {
    # What zstd holds, and its frame's kind.
    "a record of another kind": (b"7", b'{"id":"thing-1"}'),
    "a word that is not known": (b"2", b'{"id":"f","given_at":1,"tenant":"t","caller":"c",'
                                       b'"exchange":"x","kind":"ranking","value":1}'),
}  # fmt: skip


@pytest.mark.parametrize("what", FRAMES)
def test_a_newer_segment_is_refused_and_stays(left: Path, what: str):
    kind, content = FRAMES[what]
    packed = zstandard.compress(content)
    (segment,) = (left / "record").glob("*.segment")
    frame = struct.pack("<3s1sII", segments.MAGIC, kind, len(packed), zlib.crc32(packed)) + packed
    before = segment.read_bytes()
    segment.write_bytes(before + frame)

    with pytest.raises(NewerRecord, match=rf"{segment.name}: a newer release.*upgrade"):
        list(shelf(left / "record").exchanges())
    with pytest.raises(NewerRecord):
        compact(shelf(left / "record"), Retention())
    with pytest.raises(NewerRecord):
        erase(shelf(left / "record"), Choice(caller="c"))

    assert segment.read_bytes() == before + frame


ROWS = {
    "exchange": (exchange("chatcmpl-9"), Rows().exchanges),
    "feedback": (feedback("feedback-9", "chatcmpl-9"), Rows().feedback),
    "shadow": (shadowed("shadow-9", "chatcmpl-9"), Rows().shadows),
}


@pytest.mark.parametrize("column", ROWS)
def test_a_newer_row_of_the_archive_is_refused(column: str):
    record, read = ROWS[column]
    (batch,) = Rows().table([record]).to_batches()
    newer = pa.array(['{"id": 9, "new": true}'])
    at = batch.schema.get_field_index(column)

    with pytest.raises(NewerRecord, match="upgrade Headrace"):
        list(read(batch.set_column(at, column, newer)))


def test_a_newer_exchange_that_says_more_is_read(tmp_path: Path):
    # Exchanges only ever get fields: see the module that has them.
    newer = exchange("chatcmpl-9", version=99)
    write(tmp_path, newer)

    assert [one.id for one in shelf(tmp_path).exchanges()] == ["chatcmpl-9"]
