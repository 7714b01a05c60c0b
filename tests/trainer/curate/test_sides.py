"""The ledger: groups keep their places, whatever grows together."""

from __future__ import annotations

import pytest

from trainer.curate.sides import Ledger, Member, fitting, place
from trainer.errors import DatasetError
from trainer.recipe import SplitSettings

HALF = SplitSettings(unseen_tools=0, seen=0.5)
FOREVER = float("inf")


def members(*clusters: tuple[str, ...]) -> list[Member]:
    return [Member(g, n, FOREVER, False) for n, names in enumerate(clusters) for g in names]


def named(where: str) -> list[str]:
    """Groups that the hash puts there."""
    return [f"{n:016x}" for n in range(99) if place(f"{n:016x}", False, HALF) == where]


TRAIN, TEST = named("train"), named("test")


def test_a_new_cluster_is_on_one_side(tmp_path):
    ledger = Ledger(tmp_path / "sides.jsonl")

    ledger.settle(members((TRAIN[0], TEST[0], TRAIN[1])), HALF)

    assert len({ledger.places[g] for g in (TRAIN[0], TEST[0], TRAIN[1])}) == 1


def test_places_are_remembered(tmp_path):
    Ledger(tmp_path / "sides.jsonl").settle(members((TRAIN[0],), (TEST[0],)), HALF)

    again = Ledger(tmp_path / "sides.jsonl")

    assert again.places == {TRAIN[0]: "train", TEST[0]: "test"}


def test_a_new_group_joins_the_side_of_its_cluster(tmp_path):
    ledger = Ledger(tmp_path / "sides.jsonl")
    ledger.settle(members((TRAIN[0],)), HALF)

    ledger.settle(members((TRAIN[0], TEST[0])), HALF)

    assert ledger.places[TEST[0]] == "train"


def test_when_clusters_of_two_sides_grow_together_nobody_moves_and_the_new_is_left_out(tmp_path):
    ledger = Ledger(tmp_path / "sides.jsonl")
    ledger.settle(members((TRAIN[0],), (TEST[0],)), HALF)

    ledger.settle(members((TRAIN[0], TEST[0], TRAIN[1])), HALF)

    assert [ledger.places[g] for g in (TRAIN[0], TEST[0], TRAIN[1])] == ["train", "test", "nowhere"]


def test_the_newest_clusters_are_tested(tmp_path):
    ledger = Ledger(tmp_path / "sides.jsonl")
    timed = [Member(f"{n:016x}", n, float(n), False) for n in range(10)]

    ledger.settle(timed, SplitSettings(seen=0.3, newest=True, ledger="x"))

    tested = [name for name, where in ledger.places.items() if where == "test"]
    assert sorted(tested) == [f"{n:016x}" for n in (7, 8, 9)]


def test_a_broken_ledger_is_told(tmp_path):
    (tmp_path / "sides.jsonl").write_bytes(b"{\n")

    with pytest.raises(DatasetError, match=r"sides\.jsonl.*restore it"):
        Ledger(tmp_path / "sides.jsonl")


# ---------------------------------------------------------------- whole clusters


@pytest.mark.parametrize(
    ("clusters", "most", "chosen"),
    [
        ([7, 7, 3, 5, 3, 9], 2, {7}),
        ([7, 7, 3, 5, 3, 9], 3, {7, 5}),
        ([7, 7, 7, 3, 5], 2, {3, 5}),
        ([7, 7, 7], 2, set()),
        ([7], 0, set()),
    ],
)
def test_whole_clusters_are_chosen_until_there_are_enough_rows(clusters, most, chosen):
    assert fitting(clusters, most) == chosen
