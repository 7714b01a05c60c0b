"""The champion file: never torn, changed by one writer at a time, its history whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.protocol import champions
from proxy.protocol.adapter import AdapterError
from proxy.protocol.champions import Alias, Candidate, Champions, Conflict, appoint, change
from proxy.protocol.store import StoreError

GEO = Alias(champion="geo-v7", since="2026-11-01T00:00:00Z", previous="geo-v6")

ids = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
aliases = st.builds(
    Alias,
    champion=st.none() | ids,
    since=st.text(),
    previous=st.none() | ids,
    candidate=st.none()
    | st.builds(
        Candidate,
        adapter=ids,
        share=st.floats(0, 1),
        stage=st.sampled_from(["loading", "shadow", "canary", "full"]),
        since=st.text(),
        run=st.text(),
    ),
    cooldown_until=st.none() | st.text(),
)


@settings(max_examples=30, deadline=None)
@given(domain=st.text(), alias=aliases)
def test_what_is_written_is_read(domain: str, alias: Alias):
    with TemporaryDirectory() as directory:
        change(Path(directory), domain, alias, 0, "because")

        assert champions.read(Path(directory)).domains == {domain: alias}


def test_where_nothing_was_written_there_is_no_champion(tmp_path: Path):
    assert champions.read(tmp_path / "none") == Champions()
    assert champions.history(tmp_path / "none") == []


def test_each_change_raises_the_revision_and_leaves_the_other_domains(tmp_path: Path):
    change(tmp_path, "geo", GEO, 0, "first")
    change(tmp_path, "api", Alias(champion="api-v1"), 1, "second")

    there = change(tmp_path, "geo", None, 2, "third")

    assert there == champions.read(tmp_path)
    assert (there.revision, there.serving) == (3, {"api": "api-v1"})


@given(st.dictionaries(st.text(), st.text(min_size=1)))
def test_the_old_form_is_read(serving: dict[str, str]):
    there = champions.decode(json.dumps(serving).encode())

    assert (there.revision, there.serving) == (0, serving)


def test_the_old_form_becomes_the_new_with_its_first_change(tmp_path: Path):
    (tmp_path / "champions.json").write_text('{"version": "version-v1", "geo": "geo-v1"}')

    appoint(tmp_path, "geo", "geo-v2", "better")

    there = champions.read(tmp_path)
    assert there.serving == {"geo": "geo-v2", "version": "version-v1"}
    assert (there.revision, there.domains["geo"].previous) == (1, "geo-v1")


def test_a_file_of_a_newer_release_is_refused_with_the_remedy(tmp_path: Path):
    (tmp_path / "champions.json").write_text('{"version": 3, "domains": []}')

    with pytest.raises(AdapterError, match=r"champions\.json was written by a newer.*upgrade"):
        champions.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"api":', b"[]", b'{"api": 1}', b'{"api": "\xff"}', b'{"version": true}'),
        b'{"version": 2, "domains": {"geo": {"candidate": {"adapter": "geo-v1", "share": 2}}}}',
        b'{"version": 2, "domains": {"geo": {"candidate": {"adapter": "g", "stage": "next"}}}}',
        pytest.param(b'{"api":' * 5000, id="without a bottom"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "champions.json").write_bytes(content)

    with pytest.raises(AdapterError, match=r"champions\.json"):
        champions.read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "champions.json")

    with pytest.raises(AdapterError, match=r"champions\.json"):
        champions.read(tmp_path)


def test_a_file_without_end_is_not_read(tmp_path: Path):
    (tmp_path / "champions.json").write_bytes(b" " * (1024 * 1024 + 1))

    with pytest.raises(StoreError, match=r"champions\.json has more than 1048576 bytes"):
        champions.read(tmp_path)


@pytest.mark.parametrize("id", ["../geo-v1", "GEO", "a" * 64])
def test_no_name_is_written_that_is_a_path(tmp_path: Path, id: str):
    with pytest.raises(AdapterError, match="is no adapter id"):
        change(tmp_path, "geo", Alias(champion="geo-v1", candidate=Candidate(adapter=id)), 0, "")

    assert champions.read(tmp_path) == Champions()


# ---------------------------------------------------------------- appoint


def test_the_one_before_can_be_gone_back_to(tmp_path: Path):
    appoint(tmp_path, "geo", "geo-v1", "first")
    appoint(tmp_path, "geo", "geo-v2", "better")

    geo = champions.read(tmp_path).domains["geo"]

    assert (geo.champion, geo.previous) == ("geo-v2", "geo-v1")


def test_who_is_the_champion_already_stays_it(tmp_path: Path):
    appoint(tmp_path, "geo", "geo-v1", "first")
    there = appoint(tmp_path, "geo", "geo-v2", "better")

    assert appoint(tmp_path, "geo", "geo-v2", "again") == there


def test_a_candidate_that_is_appointed_is_one_no_more(tmp_path: Path):
    tried = Alias(champion="geo-v1", candidate=Candidate(adapter="geo-v2", share=0.1))
    change(tmp_path, "geo", tried, 0, "try it")

    geo = appoint(tmp_path, "geo", "geo-v2", "good").domains["geo"]

    assert (geo.champion, geo.previous, geo.candidate) == ("geo-v2", "geo-v1", None)


# ---------------------------------------------------------------- two writers


def test_who_decided_on_an_older_file_is_told_who_was_first(tmp_path: Path):
    change(tmp_path, "geo", GEO, 0, "it is better", who="ann@trainer")

    with pytest.raises(Conflict, match=r"revision 1 and not 0, by ann@trainer.*it is better") as it:
        change(tmp_path, "geo", Alias(champion="geo-v9"), 0, "mine")

    assert it.value.there == champions.read(tmp_path)
    assert it.value.there.domains["geo"] == GEO


ROUNDS = 40


def _hammer(directory: Path, name: str) -> list[int]:
    """Change the file ROUNDS times, against the others; the revisions that were ours."""
    won = []
    while len(won) < ROUNDS:
        there = champions.read(directory)
        try:
            alias = Alias(champion=f"{name}-v{len(won)}", since="x" * 2000)
            won.append(change(directory, name, alias, there.revision, "race", who=name).revision)
        except Conflict:
            continue
    return won


def test_processes_that_race_lose_no_change_and_tear_no_file(tmp_path: Path):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        won = list(pool.map(_hammer, [tmp_path] * 3, ["a", "b", "c"]))

    assert sorted(chain.from_iterable(won)) == list(range(1, 3 * ROUNDS + 1))
    assert champions.read(tmp_path).serving == {n: f"{n}-v{ROUNDS - 1}" for n in "abc"}
    told = {change.revision: change.who for change in champions.history(tmp_path)}
    assert told == {
        revision: n for n, revisions in zip("abc", won, strict=True) for revision in revisions
    }
    assert {path.name for path in tmp_path.iterdir()} == {"champions.json", ".history", ".lock"}


# ---------------------------------------------------------------- history


def test_the_history_says_who_changed_what_and_why(tmp_path: Path):
    change(tmp_path, "geo", GEO, 0, "first", who="ann")
    change(tmp_path, "api", Alias(champion="api-v1"), 1, "other", who="bob")
    change(tmp_path, "geo", None, 2, "no more", who="bob")

    first, last = champions.history(tmp_path, "geo")

    assert (first.who, first.before, first.after, first.reason) == ("ann", None, GEO, "first")
    assert (last.revision, last.who, last.before, last.after) == (3, "bob", GEO, None)
    assert len(champions.history(tmp_path)) == 3


def _no_power(*_: object) -> None:
    raise OSError("no power")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_change_that_is_cut_off_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    appoint(tmp_path, "geo", "geo-v1", "first")
    place: dict[str, tuple[object, str, Callable[..., None]]] = {
        "fsync": (os, "fsync", _no_power),
        "replace": (Path, "replace", _no_power),
    }
    monkeypatch.setattr(*place[step])

    with pytest.raises(StoreError, match="no power"):
        appoint(tmp_path, "geo", "geo-v2", "second")

    monkeypatch.undo()
    assert champions.read(tmp_path).serving == {"geo": "geo-v1"}
    assert [change.reason for change in champions.history(tmp_path)] == ["first"]
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_writer_that_died_left_out_of_the_history_is_told_and_kept(tmp_path: Path):
    appoint(tmp_path, "geo", "geo-v1", "first")
    (tmp_path / ".history" / "00000001.json").unlink()

    assert [change.reason for change in champions.history(tmp_path)] == ["first"]

    appoint(tmp_path, "geo", "geo-v2", "second")
    assert [change.reason for change in champions.history(tmp_path)] == ["first", "second"]


def test_a_history_that_cannot_be_written_undoes_no_change(tmp_path: Path):
    (tmp_path / ".history").write_text("no directory")

    appoint(tmp_path, "geo", "geo-v1", "first")

    assert champions.read(tmp_path).serving == {"geo": "geo-v1"}


def test_a_file_written_by_hand_loses_no_history(tmp_path: Path):
    appoint(tmp_path, "geo", "geo-v1", "first")
    (tmp_path / "champions.json").write_text('{"geo": "geo-v7"}')

    appoint(tmp_path, "geo", "geo-v8", "second")

    assert [c.revision for c in champions.history(tmp_path)] == [1, 2]
    assert champions.read(tmp_path).domains["geo"].previous == "geo-v7"


@pytest.mark.parametrize("content", ["{", pytest.param('{"x":' * 5000, id="without a bottom")])
def test_a_broken_page_of_the_history_is_named(tmp_path: Path, content: str):
    appoint(tmp_path, "geo", "geo-v1", "first")
    appoint(tmp_path, "geo", "geo-v2", "second")
    (tmp_path / ".history" / "00000001.json").write_text(content)

    with pytest.raises(AdapterError, match=r"00000001\.json"):
        champions.history(tmp_path)
