"""Datasets on disk: what is read is what was made, and where each row came from is known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.trainer.curate.test_build import ALONE, RECIPE
from tests.trainer.examples import corpus, row, weather
from trainer import dataset
from trainer.curate.build import build
from trainer.dataset import SIDES
from trainer.errors import DatasetError
from trainer.recipe import SplitSettings

seeds = st.integers(min_value=0, max_value=1000)
few = settings(max_examples=5, phases=[Phase.generate])
SEALED = msgspec.structs.replace(
    RECIPE, split=SplitSettings(unseen_tools=0.2, seen=0.2, sealed=0.2, validation=4)
)


# ---------------------------------------------------------------- on disk


@few
@given(seeds)
def test_a_dataset_is_read_as_it_was_written(directories, seed):
    directory = directories / str(seed)
    build(corpus(seed), RECIPE, directory)

    read = dataset.read(directory)
    dataset.write(read, directory / "again")
    assert dataset.read(directory / "again") == read


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture
def written(tmp_path):
    build(corpus(0), RECIPE, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["manifest.json", "train.jsonl", "unseen.jsonl"])
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()

    with pytest.raises(DatasetError, match=f"{written}.*{name}"):
        dataset.read(written)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"fingerprint": "x"}', b'{"a": "\xff"}'])
def test_a_broken_manifest_is_told_with_the_directory(written, content):
    (written / "manifest.json").write_bytes(content)

    with pytest.raises(DatasetError, match=str(written)):
        dataset.read(written)


def test_rows_that_were_changed_are_told(written):
    lines = (written / "seen.jsonl").read_bytes().splitlines(keepends=True)
    (written / "seen.jsonl").write_bytes(b"".join(lines[1:]))

    with pytest.raises(DatasetError, match="not those of its manifest; build it again"):
        dataset.read(written)


def test_accepted_values_that_were_changed_are_told(tmp_path):
    accepted = row(weather(), accepted={"city": ["Oslo"]})
    build([accepted], ALONE, tmp_path)
    train = tmp_path / "train.jsonl"
    train.write_bytes(train.read_bytes().replace(b'{"city":["Oslo"]}', b'{"city":["Rome"]}'))

    with pytest.raises(DatasetError, match="not those of its manifest; build it again"):
        dataset.read(tmp_path)


def test_sealed_rows_are_opened_once_for_each_candidate(tmp_path):
    build(corpus(0), SEALED, tmp_path)

    first, second = dataset.unseal(tmp_path, "api-v2"), dataset.unseal(tmp_path, "api-v3")

    assert first == second != []
    with pytest.raises(DatasetError, match="api-v2 has had its look"):
        dataset.unseal(tmp_path, "api-v2")
    assert [opening.candidate for opening in dataset.openings(tmp_path)] == ["api-v2", "api-v3"]


def test_sealed_rows_are_on_no_other_side(tmp_path):
    build(corpus(0), SEALED, tmp_path)

    read = dataset.read(tmp_path)
    sealed = {one.group for one in dataset.unseal(tmp_path, "api-v2")}
    assert not sealed & {one.group for side in SIDES for one in getattr(read, side)}


def test_where_nothing_is_sealed_the_remedy_is_told(written):
    with pytest.raises(DatasetError, match=r"`split\.sealed`"):
        dataset.unseal(written, "api-v2")


def test_sealed_rows_that_were_changed_are_told(tmp_path):
    build(corpus(0), SEALED, tmp_path)
    path = tmp_path / "sealed.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])

    with pytest.raises(DatasetError, match="sealed rows are not those"):
        dataset.unseal(tmp_path, "api-v2")


# ---------------------------------------------------------------- lineage


@pytest.fixture
def recorded(tmp_path) -> Path:
    rows = [
        msgspec.structs.replace(one, exchange=f"chatcmpl-{number}")
        for number, one in enumerate(corpus(0))
    ]
    broken = msgspec.structs.replace(row(weather(), weather()), exchange="chatcmpl-x")
    build([*rows, broken], RECIPE, tmp_path)
    return tmp_path


def test_why_a_row_fell_is_known_by_its_exchange(recorded):
    (fate,) = dataset.why(recorded, "chatcmpl-x")

    assert (fate.step, fate.reason, fate.detail) == ("schema", "several_calls", "2 calls")


def test_why_a_row_stayed_is_known_by_the_id_that_it_has_on_its_side(recorded):
    shown = dataset.read(recorded).train[0]

    assert {fate.step for fate in dataset.why(recorded, shown.id)} == {"train"}


def test_of_what_was_never_read_nothing_is_known(recorded):
    assert dataset.why(recorded, "chatcmpl-none") == []


def test_a_dataset_of_erased_exchanges_is_tainted_and_not_read(recorded):
    used = dataset.read(recorded).train[0].exchange

    found = dataset.find_taint(recorded, frozenset({used, "chatcmpl-none"}))

    assert found is not None
    assert (found.exchanges, set(found.rows)) == (1, {"train"})
    with pytest.raises(DatasetError, match="tainted: 1 of its exchanges"):
        dataset.read(recorded)


def test_a_dataset_of_none_of_the_erased_exchanges_is_clean(recorded):
    assert dataset.find_taint(recorded, frozenset({"chatcmpl-none"})) is None
    assert dataset.taint(recorded) is None


def test_a_difference_says_which_rows_and_which_knobs(tmp_path):
    wider = msgspec.structs.replace(RECIPE, split=SplitSettings(unseen_tools=0.3, seen=0.6))
    build(corpus(0)[:100], RECIPE, tmp_path / "a")
    build(corpus(0), wider, tmp_path / "b")

    changed = dataset.diff(tmp_path / "a", tmp_path / "b")

    assert sum(changed.added.values()) > 0
    assert "split.seen: 0.3 → 0.6" in changed.recipe
    assert any(move.endswith("→ seen") for move in changed.moved)


def test_a_dataset_is_no_different_from_itself(recorded):
    changed = dataset.diff(recorded, recorded)

    assert changed == dataset.Difference(
        added={}, removed={}, moved={}, recipe=[], versions=[], steps=[]
    )
