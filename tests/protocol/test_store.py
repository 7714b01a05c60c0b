"""Files in a directory and in a bucket (a real server's): the same promises of both."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from proxy.protocol import champions
from proxy.protocol.bucket import BucketStore
from proxy.protocol.champions import Alias, Conflict, change
from proxy.protocol.store import DirectoryStore, Store, StoreError, Swapped
from tests.record.buckets import Bucket, bucket


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture
def s3(server: Bucket) -> Bucket:
    return server.empty()


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty one of each kind."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store")
    made: Bucket = request.getfixturevalue("s3")
    return BucketStore(made.url, made.options)


def test_what_is_not_there_is_none(store: Store):
    assert store.read("a/b.json", 10) is None
    assert store.paths("a") == []


def test_what_is_created_is_read_and_listed(store: Store):
    store.create("a/2.json", b"two")
    store.create("a/1.json", b"one")
    store.create("b/3.json", b"three")

    assert [store.read("a/1.json", 10).content, store.paths("a")] == [
        b"one",
        ["a/1.json", "a/2.json"],
    ]


def test_what_is_there_is_not_created_again(store: Store):
    store.create("a.json", b"one")

    with pytest.raises(Swapped):
        store.create("a.json", b"two")

    assert store.read("a.json", 10).content == b"one"


def test_who_saw_a_file_may_replace_it(store: Store):
    store.swap("a.json", b"one", None)
    store.swap("a.json", b"two", store.read("a.json", 10).tag)

    assert store.read("a.json", 10).content == b"two"


def test_who_saw_an_older_file_may_not(store: Store):
    store.swap("a.json", b"one", None)
    seen = store.read("a.json", 10).tag
    store.swap("a.json", b"two", seen)

    with pytest.raises(Swapped):
        store.swap("a.json", b"three", seen)

    assert store.read("a.json", 10).content == b"two"


def test_who_saw_none_may_not_replace_one(store: Store):
    store.swap("a.json", b"one", None)

    with pytest.raises(Swapped):
        store.swap("a.json", b"two", None)


def test_who_saw_one_that_is_gone_is_told(tmp_path: Path):
    store = DirectoryStore(tmp_path)
    store.swap("a.json", b"one", None)
    seen = store.read("a.json", 10).tag
    (tmp_path / "a.json").unlink()

    with pytest.raises(Swapped):
        store.swap("a.json", b"two", seen)


def test_a_file_that_is_too_long_is_not_read(store: Store):
    store.create("a.json", b"0123456789")

    assert store.read("a.json", 10).content == b"0123456789"
    with pytest.raises(StoreError, match=r"a\.json has more than 9 bytes"):
        store.read("a.json", 9)


def test_a_bucket_that_is_away_is_told(s3: Bucket):
    store = BucketStore("s3://nowhere/prefix", s3.options)

    with pytest.raises(StoreError, match=r"s3://nowhere/prefix/a\.json"):
        store.create("a.json", b"")


@pytest.mark.parametrize("url", ["s4://bucket", "s3:/bucket", "no url"])
def test_a_url_that_is_none_is_told(url: str):
    with pytest.raises(StoreError):
        BucketStore(url)


def test_a_directory_that_is_a_file_is_told(tmp_path: Path):
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreError, match="store"):
        DirectoryStore(tmp_path / "store").swap("a.json", b"", None)


# ---------------------------------------------------------------- champions in a bucket

ROUNDS = 8


def _hammer(url: str, options: dict[str, str], name: str) -> list[int]:
    store, won = BucketStore(url, options), []
    while len(won) < ROUNDS:
        there = champions.read(store)
        try:
            alias = Alias(champion=f"{name}-v{len(won)}")
            won.append(change(store, name, alias, there.revision, "race", who=name).revision)
        except Conflict:
            continue
    return won


def test_processes_that_race_on_a_bucket_lose_no_change(s3: Bucket):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(_hammer, [s3.url] * 2, [s3.options] * 2, ["a", "b"])

    store = BucketStore(s3.url, s3.options)
    assert sorted([*first, *second]) == list(range(1, 2 * ROUNDS + 1))
    assert champions.read(store).serving == {"a": f"a-v{ROUNDS - 1}", "b": f"b-v{ROUNDS - 1}"}
    told = [(one.revision, one.who) for one in champions.history(store)]
    assert told == sorted([*((r, "a") for r in first), *((r, "b") for r in second)])


class Lossy(BucketStore):
    """Does what it is asked, and its answer is lost."""

    def swap(self, path: str, content: bytes, tag: str | None) -> None:
        super().swap(path, content, tag)
        super().swap(path, content, tag)


def test_a_change_whose_answer_was_lost_is_the_writers_own(s3: Bucket):
    there = champions.appoint(Lossy(s3.url, s3.options), "geo", "geo-v1", "first")

    assert champions.read(BucketStore(s3.url, s3.options)) == there
