"""The sealed side: once for each candidate, after it passed the rest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("scipy", reason="needs the train extra")

from tests.trainer.examples import row, weather
from trainer import dataset, rows
from trainer.dataset import Dataset
from trainer.errors import DatasetError, GateError
from trainer.gate import Decision, Verdict
from trainer.sealed import unseal

SEALED = [row(weather("Bergen"), question="Rain in Bergen?")]


@pytest.fixture
def kept(tmp_path) -> Path:
    """A dataset with a sealed row."""
    some = [row(weather())]
    dataset.write(Dataset(train=some, validation=[], seen=some, unseen=some, dropped={}), tmp_path)
    rows.write(tmp_path / "sealed.jsonl", SEALED)
    said = msgspec.structs.replace(dataset.manifest(tmp_path), sealed=dataset.fingerprint(SEALED))
    dataset.write_manifest(said, tmp_path)
    return tmp_path


def verdict(kept: Path, decision: Decision = "promote", **more) -> Verdict:
    about = {"candidate": "api-v2", "dataset": dataset.read(kept).fingerprint} | more
    return Verdict(decision=decision, sentence="", rules=[], power="", at="", **about)


def test_it_opens_for_who_passed_and_that_is_kept(kept):
    assert unseal(kept, verdict(kept)) == SEALED
    assert [one.candidate for one in dataset.openings(kept)] == ["api-v2"]


def test_it_does_not_open_twice_for_one_candidate(kept):
    unseal(kept, verdict(kept))

    with pytest.raises(DatasetError, match="has had its look"):
        unseal(kept, verdict(kept))


@pytest.mark.parametrize(
    ("decision", "more"),
    [("hold", {}), ("not decidable", {}), ("refuse", {}), ("promote", {"sealed": True})],
)
def test_it_stays_shut_for_who_did_not_pass_the_rest(kept, decision, more):
    with pytest.raises(GateError, match="has not passed"):
        unseal(kept, verdict(kept, decision, **more))

    assert dataset.openings(kept) == []


def test_it_stays_shut_for_a_verdict_on_another_dataset(kept):
    with pytest.raises(GateError, match="another dataset"):
        unseal(kept, verdict(kept, dataset="sha256:2"))
