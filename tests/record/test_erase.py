"""What is erased is nowhere, in no form, and a tombstone says that it was there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.protocol import tombstones
from proxy.protocol.segments import Encoder, Segment, read_segment, segments
from proxy.record.archive import Archive, DirectoryArchive
from proxy.record.compact import Retention, compact
from proxy.record.erase import Choice, erase
from tests.record.examples import exchange, feedback, ids, shadowed, shelf, write


def fill(directory: Path, archive: Archive | None = None) -> None:
    """Two exchanges of `app` and one of `other`, with feedback; in archive and segment alike."""
    for place in ("archived", "fresh"):
        write(
            directory,
            exchange(f"{place}-1"),
            exchange(f"{place}-2", conversation="conv-2"),
            exchange(f"{place}-3", caller="other"),
            feedback(f"f-{place}-1", f"{place}-1", kind="comment", value="it was bad"),
            feedback(f"f-{place}-3", f"req-{place}-3", caller="other"),
        )
        if place == "archived":
            compact(shelf(directory, archive), Retention())


def feedback_ids(directory: Path, archive: Archive | None = None) -> list[str]:
    there = shelf(directory, archive)
    kept = [one.id for path in segments(directory) for one in read_segment(path)]
    archived = [
        one.id
        for batch in there.dataset("feedback").to_batches(columns=["feedback", "sealed"])
        for one in there.rows.feedback(batch)
    ]
    return sorted(id for id in [*kept, *archived] if id.startswith("f-"))


def test_caller_is_erased_from_segments_and_archive(tmp_path: Path, archive: Archive):
    fill(tmp_path, archive)

    report = erase(shelf(tmp_path, archive), Choice(caller="app"))

    assert sorted(ids(tmp_path, archive)) == ["archived-3", "fresh-3"]
    assert feedback_ids(tmp_path, archive) == ["f-archived-3", "f-fresh-3"]
    assert (report.exchanges, report.feedback, report.unfinished) == (4, 2, 0)


def test_feedback_goes_with_its_exchange_whoever_gave_it(tmp_path: Path):
    fill(tmp_path)

    erase(shelf(tmp_path), Choice(matching="Ping (archived|fresh)-3"))

    assert feedback_ids(tmp_path) == ["f-archived-1", "f-fresh-1"]
    assert sorted(ids(tmp_path)) == ["archived-1", "archived-2", "fresh-1", "fresh-2"]


@pytest.mark.parametrize(
    ("choice", "gone"),
    [
        (Choice(conversation="conv-2"), {"archived-2", "fresh-2"}),
        (Choice(matching="Ping fresh-[12]"), {"fresh-1", "fresh-2"}),
        (Choice(caller="app", conversation="conv-2", tenant="t"), {"archived-2", "fresh-2"}),
        (Choice(caller="app", tenant="another"), set()),
        (Choice(caller="nobody"), set()),
    ],
)
def test_only_what_fits_all_that_is_said_is_erased(tmp_path: Path, choice: Choice, gone: set[str]):
    fill(tmp_path)
    before = set(ids(tmp_path))

    report = erase(shelf(tmp_path), choice)

    assert before - set(ids(tmp_path)) == gone
    assert report.exchanges == len(gone)


def test_no_byte_of_it_is_left(tmp_path: Path):
    archive = DirectoryArchive(tmp_path / "archive")
    secret = msgspec.Raw(b'{"model":"m","messages":[{"role":"user","content":"xyzzy-xyzzy"}]}')
    for _ in ("archived", "fresh"):
        write(tmp_path, exchange("a", request=secret), exchange("b"))
        compact(shelf(tmp_path, archive), Retention())
    write(tmp_path, exchange("c", request=secret))

    erase(shelf(tmp_path, archive), Choice(matching="xyzzy"))

    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"xyzzy" in content for content in everything)
    assert ids(tmp_path) == ["b", "b"]
    assert segments(tmp_path) == []


def test_tombstones_are_here_and_in_the_archive(tmp_path: Path, archive: Archive):
    fill(tmp_path, archive)

    erase(shelf(tmp_path, archive), Choice(caller="app", conversation="conv-2"))

    assert tombstones.erased(tmp_path) == {"archived-2", "fresh-2"}
    (path,) = archive.paths(tombstones.FOLDER)
    buried = tombstones.decode(archive.get(path))
    assert {(one.tenant, *one.reasons) for one in buried} == {("t", "caller", "conversation")}


def test_what_a_proxy_still_writes_is_hidden_at_once_and_gone_with_the_next_run(tmp_path: Path):
    segment = Segment(tmp_path)
    segment.append(Encoder().encode([exchange("a"), feedback("f", "a"), exchange("b")]))

    report = erase(shelf(tmp_path), Choice(matching="Ping a"), patience=0)
    hidden = ids(tmp_path)
    segment.close()
    compact(shelf(tmp_path), Retention())

    assert report.unfinished == 1
    assert hidden == ids(tmp_path) == ["b"]
    assert feedback_ids(tmp_path) == []


def test_what_another_machine_still_has_is_hidden_and_never_archived(
    tmp_path: Path, archive: Archive
):
    write(tmp_path / "one", exchange("a"))
    write(tmp_path / "other", exchange("a"), exchange("b"))

    erase(shelf(tmp_path / "one", archive), Choice(caller="app"))
    seen = ids(tmp_path / "other", archive)
    compact(shelf(tmp_path / "other", archive), Retention())

    assert seen == ids(tmp_path / "third", archive) == ["b"]


def test_choice_of_everything_is_none():
    with pytest.raises(ValueError, match="nothing says"):
        Choice()


def shadows(directory: Path, archive: Archive | None = None) -> list[str]:
    return sorted(one.id for one in shelf(directory, archive).shadows())


def test_shadow_goes_with_its_exchange(tmp_path: Path, archive: Archive):
    write(tmp_path, exchange("a"), exchange("b", caller="other"))
    write(tmp_path, shadowed("s-a", "a"), shadowed("s-b", "b", caller="other"))
    compact(shelf(tmp_path, archive), Retention())
    write(tmp_path, exchange("c"), shadowed("s-c", "c"), shadowed("s-a-again", "a"))

    report = erase(shelf(tmp_path, archive), Choice(caller="app"))

    assert (report.exchanges, report.shadows) == (2, 3)
    assert shadows(tmp_path, archive) == ["s-b"]
    assert [one.id for path in segments(tmp_path) for one in read_segment(path)] == []


def test_shadow_that_comes_after_the_erasure_of_its_exchange_is_not_seen(tmp_path: Path):
    write(tmp_path, exchange("a"))
    erase(shelf(tmp_path), Choice(tenant="t"))

    write(tmp_path, shadowed("s", "a"))
    seen = shadows(tmp_path)
    compact(shelf(tmp_path), Retention())

    assert seen == []
    assert shelf(tmp_path).dataset("shadows").count_rows() == 0


def test_what_is_found_in_a_shadow_alone_takes_the_shadow_alone(tmp_path: Path):
    write(tmp_path, exchange("a"), shadowed("s", "a"))

    erase(shelf(tmp_path), Choice(matching="No need"))

    assert (ids(tmp_path), shadows(tmp_path)) == (["a"], [])
