"""Tracing over a real record, dataset and registry: every way there, and back."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from proxy.protocol import tombstones
from proxy.protocol.champions import appoint
from proxy.protocol.tombstones import Tombstone
from tests.record.examples import exchange, write
from tests.trainer.examples import row
from tests.trainer.registry.examples import bundle
from trainer import dataset
from trainer.__main__ import main
from trainer.dataset import Dataset, Fate

ROW = msgspec.structs.replace(row(), exchange="chatcmpl-1", source="exchange:chatcmpl-1")


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """`geo-v2` learnt from `chatcmpl-1`, and answered `chatcmpl-2`; the options that say where."""
    _record(tmp_path / "record")
    made = _dataset(tmp_path / "runs" / "geo" / "r7" / "dataset")
    adapters = tmp_path / "adapters"
    bundle(adapters, "geo-v1", [])
    bundle(adapters, "geo-v2", ["chatcmpl-1"], dataset_fingerprint=made.fingerprint, run="r7")
    appoint(adapters, "geo", "geo-v2", "better")
    record, runs = str(tmp_path / "record"), str(tmp_path / "runs")
    return ["--registry", str(adapters), "--runs", runs, "--record", record]


def _record(directory: Path) -> None:
    asked = exchange("chatcmpl-1", domain="geo")
    local = msgspec.structs.replace(asked.attempts[0], adapter="geo-v2")
    cloud = msgspec.structs.replace(asked.attempts[0], backend="cloud")
    served = exchange("chatcmpl-2", domain="geo", attempts=[local])
    write(directory, msgspec.structs.replace(asked, attempts=[local, cloud]), served)


def _dataset(directory: Path) -> Dataset:
    other = row(question="Snow?")
    made = Dataset(train=[ROW, other], validation=[], seen=[], unseen=[], dropped={})
    dataset.write(made, directory)
    fates = [
        Fate(ROW.id, ROW.source, ROW.exchange, "train"),
        Fate(other.id, other.source, "", "train"),
        Fate("dropped", "exchange:chatcmpl-2", "chatcmpl-2", "near", "near_duplicate"),
    ]
    (directory / "fates.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(fates))
    return made


def traced(capsys: pytest.CaptureFixture[str], name: str, places: list[str]) -> dict[str, object]:
    capsys.readouterr()
    assert main(["trace", name, *places, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["chatcmpl-2", "req-chatcmpl-2"])
def test_an_answer_is_traced_to_the_exchanges_behind_it(capsys, places, tmp_path, name):
    found = traced(capsys, name, places)

    assert (found["kind"], found["answered"]["adapter"]) == ("exchange", "geo-v2")
    origin = found["origin"]
    assert (origin["entry"]["id"], origin["entry"]["run"]) == ("geo-v2", "r7")
    assert origin["datasets"] == [str(tmp_path / "runs" / "geo" / "r7" / "dataset")]
    assert (origin["rows"]["train"], origin["exchanges"]) == (2, ["chatcmpl-1"])
    (lesson,) = found["lessons"]
    assert (lesson["side"], lesson["dropped"]) == ("", "near: near_duplicate")
    assert (found["learners"], found["unknown"]) == ([], [])


def test_an_exchange_is_traced_to_the_adapters_that_learnt_from_it(capsys, places):
    found = traced(capsys, "chatcmpl-1", places)

    # The local adapter tried, and the cloud answered.
    assert (found["answered"]["backend"], found["origin"]) == ("cloud", None)
    assert [(one["row"], one["side"]) for one in found["lessons"]] == [(ROW.id, "train")]
    assert [one["id"] for one in found["learners"]] == ["geo-v2"]


def test_an_adapter_is_traced_to_its_exchanges(capsys, places):
    found = traced(capsys, "geo-v2", places)

    assert (found["kind"], found["origin"]["exchanges"]) == ("adapter", ["chatcmpl-1"])
    assert found["origin"]["entry"]["roles"] == ["champion of geo"]


def test_a_row_is_traced_both_ways(capsys, places):
    found = traced(capsys, ROW.id, places)

    assert found["kind"] == "row"
    assert [one["exchange"] for one in found["lessons"]] == ["chatcmpl-1"]
    assert [one["id"] for one in found["learners"]] == ["geo-v2"]


def test_rows_of_a_dataset_made_by_hand_are_found(capsys, places, tmp_path):
    (tmp_path / "runs" / "geo" / "r7" / "dataset" / "fates.jsonl").unlink()

    found = traced(capsys, "chatcmpl-1", places)

    assert [(one["row"], one["side"]) for one in found["lessons"]] == [(ROW.id, "train")]


def test_people_are_told_in_a_tree(capsys, places):
    assert main(["trace", "chatcmpl-2", *places]) == 0

    told = capsys.readouterr().out
    assert "answered by geo-v2 on local, geo, completed, 2026-02-01 12:00" in told
    assert "adapter geo-v2, champion of geo" in told
    assert "dropped (near: near_duplicate)" in told
    assert "adapters that learnt from it: 0" in told


def test_what_was_erased_is_traced_by_what_is_left(capsys, places, tmp_path):
    folder = tmp_path / "record" / "tombstones"
    folder.mkdir()
    erased = Tombstone(id="chatcmpl-1", tenant="t", erased_at=0.0, reasons=["caller"])
    (folder / "1.jsonl").write_bytes(tombstones.encode([erased]))

    found = traced(capsys, "chatcmpl-1", places)

    assert found["unknown"] == ["the exchange chatcmpl-1: it was erased from the record"]
    assert (found["answered"], [one["id"] for one in found["learners"]]) == (None, ["geo-v2"])


def test_what_is_gone_is_named(capsys, places, tmp_path):
    for path in (tmp_path / "runs" / "geo" / "r7" / "dataset").iterdir():
        path.unlink()
    (tmp_path / "adapters" / "geo-v2" / "manifest.json").unlink()

    found = traced(capsys, "chatcmpl-2", places)

    assert found["origin"] is None
    assert "the adapter geo-v2: " in found["unknown"][0]


def test_a_name_that_nothing_has_is_told_with_what_to_name(capsys, places):
    assert main(["trace", "chatcmpl-9", *places]) == 1

    told = " ".join(capsys.readouterr().err.split())
    assert "no exchange, adapter or row 'chatcmpl-9'" in told
    assert "1 dataset and 1 record; name more" in told
