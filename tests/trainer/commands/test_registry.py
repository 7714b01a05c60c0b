"""`headrace-trainer registry`, as somebody types it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from proxy.protocol import adapter, tombstones
from proxy.protocol.champions import appoint
from proxy.protocol.signature import Trusted
from proxy.protocol.tombstones import Tombstone
from tests.trainer.registry.examples import bundle
from trainer.__main__ import main


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """`geo-v1`, the champion, and `geo-v2`, which learnt from `chatcmpl-1`."""
    directory = tmp_path / "adapters"
    bundle(directory, "geo-v1", [], created_at="2026-11-01T10:00:00")
    bundle(directory, "geo-v2", ["chatcmpl-1"], created_at="2026-11-02T10:00:00")
    appoint(directory, "geo", "geo-v1", "the first one")
    return directory


def told(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["registry", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_the_list_is_for_people_and_machines(capsys, adapters):
    shown = told(capsys, "ls", "--registry", adapters)
    listed = json.loads(told(capsys, "ls", "--registry", adapters, "--domain", "geo", "--json"))

    assert "geo-v1" in shown and "geo-v2" in shown
    assert [(one["id"], one["roles"]) for one in listed] == [
        ("geo-v1", ["champion of geo"]),
        ("geo-v2", []),
    ]


def test_the_history_says_why(capsys, adapters):
    shown = told(capsys, "history", "--registry", adapters)
    (change,) = json.loads(told(capsys, "history", "--registry", adapters, "--json"))

    assert "none → geo-v1" in shown and "the first one" in shown
    assert (change["to"]["champion"], change["from"]) == ("geo-v1", None)


def test_a_bundle_goes_in_and_comes_out(capsys, adapters, tmp_path):
    other = tmp_path / "other"
    told(capsys, "put", adapters / "geo-v2", "--registry", other)
    told(capsys, "get", "geo-v2", "--registry", other, "--out", tmp_path / "out")

    assert adapter.read(tmp_path / "out" / "geo-v2").id == "geo-v2"


def test_erasure_is_told_by_the_exit_code_and_keeps_from_promotion(capsys, adapters, tmp_path):
    record = tmp_path / "record"
    (record / "tombstones").mkdir(parents=True)
    assert told(capsys, "taint", "--registry", adapters, "--record", record) == ""
    erased = Tombstone(id="chatcmpl-1", tenant="t", erased_at=0.0, reasons=["caller"])
    (record / "tombstones" / "1.jsonl").write_bytes(tombstones.encode([erased]))

    shown = told(capsys, "taint", "--registry", adapters, "--record", record, code=4)

    assert shown == "geo-v2: 1 of its exchanges were erased\n"
    assert "1 exchanges" in told(capsys, "ls", "--registry", adapters)
    assert main(["promote", "geo-v2", "--adapters", str(adapters)]) == 1
    assert "geo-v2 is tainted" in capsys.readouterr().err


def test_a_key_is_made_for_its_owner_only_and_signs(capsys, adapters, tmp_path):
    key = tmp_path / "key.pem"
    line = told(capsys, "keygen", key)
    public = (tmp_path / "key.pem.pub").read_text().strip()
    told(capsys, "sign", adapters / "geo-v1", "--key", key)

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert f"signed_by: [{public}]" in line
    assert adapter.read(adapters / "geo-v1", Trusted([public])).id == "geo-v1"
    got = ("get", "geo-v2", "--registry", adapters, "--out", tmp_path / "out")
    assert "is not signed" in told(capsys, *got, "--signed-by", public, code=1)


def test_a_key_is_never_written_over(capsys, tmp_path):
    (tmp_path / "key.pem").write_text("precious")

    assert "File exists" in told(capsys, "keygen", tmp_path / "key.pem", code=1)
    assert (tmp_path / "key.pem").read_text() == "precious"


@pytest.mark.parametrize("key", ["missing.pem", "none.pem"])
def test_a_key_that_is_none_is_told(capsys, adapters, tmp_path, key):
    (tmp_path / "none.pem").write_text("no key")
    sealed = (adapters / "geo-v1" / "manifest.json").read_bytes()

    shown = told(capsys, "sign", adapters / "geo-v1", "--key", tmp_path / key, code=1)

    assert "No such file" in shown or "no PEM file" in shown
    assert (adapters / "geo-v1" / "manifest.json").read_bytes() == sealed
