"""The sealed side: once for each candidate, after it passed the rest."""

from __future__ import annotations

import pytest

from trainer.errors import GateError
from trainer.gate import Decision, Verdict
from trainer.sealed import LEDGER, openings, unseal


def verdict(decision: Decision = "promote", candidate: str = "api-v2", **more) -> Verdict:
    return Verdict(
        candidate=candidate,
        decision=decision,
        sentence="",
        rules=[],
        power="",
        at="2026-11-22T00:00:00+00:00",
        dataset="sha256:1",
        **more,
    )


def test_an_opening_is_entered(tmp_path):
    unseal(tmp_path, "sha256:1", verdict())
    unseal(tmp_path, "sha256:1", verdict(candidate="api-v3"))

    assert [one.candidate for one in openings(tmp_path)] == ["api-v2", "api-v3"]


def test_it_is_not_opened_twice_for_one_candidate(tmp_path):
    unseal(tmp_path, "sha256:1", verdict())

    with pytest.raises(GateError, match="was opened for api-v2"):
        unseal(tmp_path, "sha256:1", verdict())


@pytest.mark.parametrize("decision", ["hold", "not decidable", "refuse"])
def test_it_stays_shut_for_who_did_not_pass(tmp_path, decision):
    with pytest.raises(GateError, match="has not passed"):
        unseal(tmp_path, "sha256:1", verdict(decision))

    assert openings(tmp_path) == []


def test_it_stays_shut_for_a_verdict_on_another_dataset(tmp_path):
    with pytest.raises(GateError, match="another dataset"):
        unseal(tmp_path, "sha256:2", verdict())


def test_it_stays_shut_where_the_ledger_is_torn(tmp_path):
    (tmp_path / LEDGER).write_text('{"candidate": ')

    with pytest.raises(GateError, match="ledger"):
        unseal(tmp_path, "sha256:1", verdict())
