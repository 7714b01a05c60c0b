"""The registry, in a directory and in a bucket: what it lists, and what it lets be promoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.protocol import adapter
from proxy.protocol.adapter import AdapterError, Lineage
from proxy.protocol.champions import Alias, Candidate, Conflict
from proxy.protocol.signature import generate, sign
from tests.trainer.registry.examples import bundle
from trainer.errors import RegistryError
from trainer.registry.registry import Registry, Taint

TAINT = Taint(exchanges=3, found_at="2026-11-22T00:00:00Z")


@pytest.fixture
def made(tmp_path: Path, registry: Registry) -> Registry:
    """With `geo-v1` and `geo-v2`."""
    for id in ("geo-v1", "geo-v2"):
        registry.put(bundle(tmp_path / "made", id, []))
    return registry


def test_the_list_says_what_each_bundle_is_and_serves_as(registry: Registry, tmp_path: Path):
    first = bundle(tmp_path, "geo-v1", created_at="2026-11-01", run="r1", dataset_fingerprint="d")
    key = generate()
    adapter.sign(first, key.private)
    later = bundle(tmp_path, "geo-v2", created_at="2026-11-02")
    for path in (first, later, bundle(tmp_path, "api-v1")):
        registry.put(path)
    tried = Candidate(adapter="geo-v2", stage="canary", share=0.1)
    registry.change("geo", Alias(champion="geo-v1", candidate=tried), 0, "try it")
    registry.mark("geo-v2", TAINT)

    one, other = registry.ls("geo")

    assert (one.id, one.run, one.dataset, one.roles) == ("geo-v1", "r1", "d", ["champion of geo"])
    assert (one.signed_by, one.taint) == (sign(b"", key.private).key, None)
    assert (other.roles, other.taint) == (["candidate of geo (canary, 10%)"], TAINT)
    assert [entry.id for entry in registry.ls()] == ["api-v1", "geo-v1", "geo-v2"]


def test_an_empty_registry_lists_nothing(registry: Registry):
    assert (registry.ls(), registry.taints(), registry.history()) == ([], {}, [])
    assert registry.next_id("geo") == "geo-v1"


def test_the_next_id_was_never_used(made: Registry):
    assert (made.next_id("geo"), made.next_id("api")) == ("geo-v3", "api-v1")


def test_what_a_bundle_learnt_from_is_told(registry: Registry, tmp_path: Path):
    registry.put(bundle(tmp_path, "geo-v1", ["chatcmpl-1"]))
    registry.put(bundle(tmp_path, "geo-v2"))

    assert registry.lineage("geo-v1") == Lineage(exchanges=["chatcmpl-1"])
    assert registry.lineage("geo-v2") is None


def test_of_two_promotions_one_wins_and_the_other_is_told_who(made: Registry):
    seen = made.champions().revision
    made.change("geo", Alias(champion="geo-v1"), seen, "ours is better", who="ann")

    with pytest.raises(Conflict, match="by ann"):
        made.change("geo", Alias(champion="geo-v2"), seen, "ours is better", who="bob")

    assert made.champions().serving == {"geo": "geo-v1"}
    assert [change.who for change in made.history("geo")] == ["ann"]


@pytest.mark.parametrize(
    "alias",
    [Alias(champion="geo-v9"), Alias(candidate=Candidate(adapter="geo-v9"))],
)
def test_what_is_not_there_gets_no_role(made: Registry, alias: Alias):
    with pytest.raises(AdapterError, match="geo-v9"):
        made.change("geo", alias, 0, "typed wrong")

    assert made.champions().revision == 0


# ---------------------------------------------------------------- taint


@pytest.mark.parametrize(
    "alias",
    [Alias(champion="geo-v2"), Alias(champion="geo-v1", candidate=Candidate(adapter="geo-v2"))],
)
def test_a_tainted_bundle_gets_no_new_role(made: Registry, alias: Alias):
    made.appoint("geo-v1", "first")
    made.mark("geo-v2", TAINT)

    with pytest.raises(RegistryError, match=r"geo-v2 is tainted: 3 of the exchanges.*train"):
        made.change("geo", alias, 1, "better")
    with pytest.raises(RegistryError, match="geo-v2 is tainted"):
        made.appoint("geo-v2", "better")

    assert made.champions().domains["geo"].champion == "geo-v1"


def test_a_tainted_champion_stays_and_can_be_gone_back_to(made: Registry):
    made.appoint("geo-v1", "first")
    made.mark("geo-v1", TAINT)

    tried = Alias(champion="geo-v1", candidate=Candidate(adapter="geo-v2"))
    made.change("geo", tried, 1, "try it")
    made.appoint("geo-v2", "good")
    made.change("geo", Alias(champion="geo-v1"), 3, "roll back")

    assert made.champions().serving == {"geo": "geo-v1"}


def test_a_mark_is_made_once(made: Registry):
    made.mark("geo-v1", TAINT)
    made.mark("geo-v1", Taint(exchanges=9, found_at="later"))

    assert made.taints() == {"geo-v1": TAINT}


def test_a_torn_bundle_is_not_promoted(tmp_path: Path):
    registry = Registry(tmp_path)
    (bundle(tmp_path, "geo-v1") / "adapter_model.safetensors").write_bytes(b"")

    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors"):
        registry.appoint("geo-v1", "first")
