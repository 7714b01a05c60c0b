"""However files are joined, and whatever happens meanwhile, every row is there, and once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import log
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from proxy.protocol.parquet import EXCHANGES, FEEDBACK, SCHEMAS
from proxy.protocol.sealing import Keyring
from proxy.record import join, journal, markers, query
from proxy.record.archive import Archive, DirectoryArchive, Listed
from proxy.record.compact import Report, Retention, compact
from proxy.record.erase import Choice, erase
from tests.record.examples import (
    DAY,
    NOW,
    exchange,
    feedback,
    ids,
    shadowed,
    shelf,
    write,
)

HOUR = 60 * 60
YESTERDAY = NOW - DAY
FOREVER = Retention()
GONE = Choice(caller="gone")


def fill(
    directory: Path,
    archive: Archive | None = None,
    *,
    files: int = 3,
    at: float = YESTERDAY,
    keyring: Keyring | None = None,
) -> list[str]:
    """So many files of exchanges, of shadows and of feedback of a day; ids of the exchanges. What
    has a 1 in its id is of the caller `gone`."""
    names = [f"{directory.name}-{number}" for number in range(files)]
    for number, id in enumerate(names):
        by = {"caller": "gone" if number == 1 else "app"}
        shadow = shadowed(f"s-{id}", id, **by)
        attempt = msgspec.structs.replace(shadow.attempt, started_at=at)
        write(
            directory,
            exchange(id, started_at=at, **by),
            msgspec.structs.replace(shadow, attempt=attempt),
            feedback(f"f-{id}", id, given_at=at),
            feedback(f"said-{id}", conversation="conv-1", given_at=at, **by),
            keyring=keyring,
        )
        compact(shelf(directory, archive, keyring), FOREVER, at)
    return names


def run(directory: Path, archive: Archive | None = None, now: float = NOW) -> Report:
    return compact(shelf(directory, archive), FOREVER, now)


def seen(directory: Path, archive: Archive | None = None) -> list[str]:
    """Ids of all that a new reader sees."""
    there = shelf(directory, archive)
    said = [*there.exchanges(), *there.shadows(), *there.feedback()]
    return sorted(one.id for one in said)


def test_files_of_a_day_that_is_over_become_one(tmp_path: Path, archive: Archive):
    fill(tmp_path, archive)
    before = seen(tmp_path, archive)

    report = run(tmp_path, archive)

    files = [shelf(tmp_path, archive).files(kind) for kind in SCHEMAS]
    assert (report.joined, report.into) == (9, 3)
    assert [len(found) for found in files] == [1, 1, 1]
    assert seen(tmp_path, archive) == before


def test_old_files_stay_for_those_who_read_them(tmp_path: Path, archive: Archive):
    fill(tmp_path, archive)
    old = set(archive.paths(EXCHANGES))

    run(tmp_path, archive)
    run(tmp_path, archive, NOW + HOUR / 2)
    kept = set(archive.paths(EXCHANGES))
    run(tmp_path, archive, NOW + HOUR)

    (file,) = archive.paths(EXCHANGES)
    assert kept == {file} | old != {file}


def test_list_stays_for_those_who_listed_old_files(tmp_path: Path, archive: Archive):
    fill(tmp_path, archive)
    run(tmp_path, archive)
    run(tmp_path, archive, NOW + HOUR)

    run(tmp_path, archive, NOW + 1.5 * HOUR)
    kept = archive.paths(markers.FOLDER)
    run(tmp_path, archive, NOW + 2 * HOUR)

    assert len(kept) == 1
    assert archive.paths(markers.FOLDER) == []


def test_day_that_is_not_over_is_joined_once_it_has_many(tmp_path: Path):
    fill(tmp_path, files=7, at=NOW)
    few = run(tmp_path)
    write(tmp_path, exchange("eighth"))

    report = run(tmp_path)

    assert few.joined == 0
    assert (report.joined, report.into) == (8, 1)


def test_day_is_not_over_before_its_last_segments_came(tmp_path: Path):
    fill(tmp_path)
    midnight = NOW - NOW % DAY

    assert run(tmp_path, now=midnight + HOUR).joined == 0
    assert run(tmp_path, now=midnight + 3 * HOUR).joined == 9


def test_rows_are_in_the_order_of_time_and_in_one_row_group(tmp_path: Path):
    names = fill(tmp_path, files=5)

    run(tmp_path)

    (path,) = shelf(tmp_path).files(EXCHANGES)
    found = pq.ParquetFile(tmp_path / "archive" / path)
    assert found.num_row_groups == 1
    assert found.read(columns=["id"])["id"].to_pylist() == names
    assert found.read().schema.equals(SCHEMAS[EXCHANGES])


def test_each_machine_joins_its_own(tmp_path: Path, archive: Archive):
    one, other = tmp_path / "one", tmp_path / "other"
    names = [*fill(one, archive), *fill(other, archive)]

    run(one, archive)
    left = [path for path in shelf(one, archive).files(EXCHANGES) if journal.mark(other) in path]
    run(other, archive)

    assert len(left) == 3
    assert len(shelf(tmp_path / "third", archive).files(EXCHANGES)) == 2
    assert sorted(ids(tmp_path / "third", archive)) == sorted(names)


@pytest.mark.parametrize(("place", "joined"), [("record/archive", 6), ("elsewhere", 4)])
def test_files_that_say_not_whose_they_are_belong_to_the_directory_around_them(
    tmp_path: Path, place: str, joined: int
):
    directory, archive = tmp_path / "record", DirectoryArchive(tmp_path / place)
    fill(directory, archive, files=2)
    for number, path in enumerate(archive.paths(EXCHANGES)):
        file = tmp_path / place / path
        file.rename(file.with_name(f"20260131T0{number}0000.000000-1-aa.parquet"))

    assert compact(shelf(directory, archive), FOREVER, NOW).joined == joined


def test_encrypted_rows_stay_so_and_need_no_key(tmp_path: Path):
    keyring = Keyring({"1": b"k" * 32}, "1")
    names = fill(tmp_path, keyring=keyring)

    run(tmp_path)

    (path,) = shelf(tmp_path).files(EXCHANGES)
    assert b"Ping" not in (tmp_path / "archive" / path).read_bytes()
    assert [one.id for one in shelf(tmp_path, keyring=keyring).exchanges()] == names


def columns(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the columns of a Parquet file."""
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def test_file_of_an_earlier_release_is_joined(tmp_path: Path):
    write(tmp_path, exchange("a", started_at=YESTERDAY))
    run(tmp_path, now=YESTERDAY)
    (old,) = (tmp_path / "archive").rglob("*.parquet")
    columns(old, lambda table: table.drop_columns(["assigned", "conversation"]))
    write(tmp_path, exchange("b", started_at=YESTERDAY, assigned="split:azure"))

    report = run(tmp_path)

    rows = shelf(tmp_path).dataset(EXCHANGES).to_table().select(["id", "assigned", "conversation"])
    assert report.joined == 2
    assert rows.to_pydict() == {
        "id": ["a", "b"],
        "assigned": [None, "split:azure"],
        "conversation": [None, "conv-1"],
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.append_column("later", pa.array(["x"])),
        lambda table: table.set_column(0, "id", pa.array([1])),
    ],
)
def test_file_of_a_later_release_is_left_alone(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table]
):
    fill(tmp_path, files=2)
    first, *_ = shelf(tmp_path).files(EXCHANGES)
    columns(tmp_path / "archive" / first, change)

    with capture_logs() as logs:
        report = run(tmp_path)

    assert report.joined == 4
    assert len(shelf(tmp_path).files(EXCHANGES)) == 2
    assert [(one["event"], one["folder"]) for one in logs] == [
        ("files_not_joined", first.rpartition("/")[0])
    ]


def test_unreadable_file_is_left_alone(tmp_path: Path):
    fill(tmp_path, files=2)
    first, *_ = shelf(tmp_path).files(EXCHANGES)
    (tmp_path / "archive" / first).write_bytes(b"no Parquet")

    report = run(tmp_path)

    assert report.joined == 4
    assert len(shelf(tmp_path).files(EXCHANGES)) == 2


# ---------------------------------------------------------------- which files


def listed(sizes: list[int]) -> list[Listed]:
    return [Listed(f"{number:04}", size, "") for number, size in enumerate(sizes)]


def test_large_file_is_not_written_again_for_a_small_one():
    files = listed([100, 10, 20])

    assert join.worth_it(files, 2) == listed([100, 10, 20])[1:]
    assert join.worth_it(files[:2], 2) == []
    assert join.worth_it(files[1:], 3) == []


def test_files_are_joined_up_to_a_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    files = listed([30, 30, 30, 30])
    names = fill(tmp_path)

    monkeypatch.setattr(join, "_LARGE", 80)

    assert join.worth_it(files, 2) == files[:3]
    assert run(tmp_path).joined == 0
    assert ids(tmp_path) == names


@given(sizes=st.lists(st.integers(min_value=1, max_value=1000), min_size=1, max_size=60))
def test_files_are_few_and_rarely_written_again(sizes: list[int]):
    kept: list[tuple[int, int]] = []
    for size in sizes:
        kept.append((size, 0))
        chosen = [int(one.path) for one in join.worth_it(listed([size for size, _ in kept]), 2)]
        if chosen:
            total = sum(kept[place][0] for place in chosen)
            writes = 1 + max(kept[place][1] for place in chosen)
            kept = [one for place, one in enumerate(kept) if place not in chosen]
            kept.append((total, writes))

    ordered = sorted(size for size, _ in kept)
    assert all(larger > 2 * smaller for smaller, larger in pairwise(ordered))
    assert max(writes for _, writes in kept) <= log(sum(sizes), 1.5)


# ---------------------------------------------------------------- interruptions


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class Dying(DirectoryArchive):
    """An archive in whose hands the process dies: before or after some change."""

    def __init__(self, directory: Path, changes: int, *, after: bool) -> None:
        super().__init__(directory)
        self.left = changes
        self.after = after

    def put(self, path: str, file: Path) -> None:
        self._change(lambda: super(Dying, self).put(path, file))

    def delete(self, path: str) -> None:
        self._change(lambda: super(Dying, self).delete(path))

    def _change(self, make: Callable[[], None]) -> None:
        if self.left == 0 and not self.after:
            raise Killed
        make()
        if self.left == 0:
            raise Killed
        self.left -= 1


CHANGES = {0: 4, 1: 7, 2: 1}
"""What a run changes, by how many hours after the first it is: list and three files; list and six
old files; list."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("hour", "changes"), [(hour, n) for hour, count in CHANGES.items() for n in range(count)]
)
def test_run_that_is_killed_at_any_step_costs_nothing(
    tmp_path: Path, hour: int, changes: int, after: bool
):
    fill(tmp_path, files=2)
    before = seen(tmp_path)
    for earlier in range(hour):
        run(tmp_path, now=NOW + earlier * HOUR)
    dying = Dying(tmp_path / "archive", changes, after=after)

    with pytest.raises(Killed):
        run(tmp_path, dying, NOW + hour * HOUR)
    between = seen(tmp_path)
    following = [after_run(tmp_path, NOW + later * HOUR) for later in range(hour + 1, hour + 5)]

    assert between == before
    assert following == [before] * 4
    assert len(list((tmp_path / "archive").rglob("*.parquet"))) == 3
    assert shelf(tmp_path).archive.paths(markers.FOLDER) == []


def after_run(directory: Path, now: float) -> list[str]:
    run(directory, now=now)
    return seen(directory)


def test_runs_change_what_is_tested(tmp_path: Path):
    fill(tmp_path, files=2)

    for hour, count in CHANGES.items():
        counting = Dying(tmp_path / "archive", 100, after=False)
        run(tmp_path, counting, NOW + hour * HOUR)
        assert 100 - counting.left == count


# ---------------------------------------------------------------- readers meanwhile


class Watched(DirectoryArchive):
    """Keeps what there was after each change: the paths, and the joins."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.states: list[tuple[list[str], list[markers.Join]]] = []

    def put(self, path: str, file: Path) -> None:
        super().put(path, file)
        self.watch()

    def delete(self, path: str) -> None:
        super().delete(path)
        self.watch()

    def watch(self) -> None:
        joins = [one for path in self.paths(markers.FOLDER) for one in markers.read(self)]
        self.states.append((self.paths(EXCHANGES), joins))


def listings(states: list[list[str]]) -> Iterator[list[str]]:
    """What somebody may see who lists while this happens: up to some path as it was at first, from
    there on as it is at last."""
    every = sorted(set().union(*states))
    for cut in [*every, "~"]:
        yield [p for p in states[0] if p < cut] + [p for p in states[-1] if p >= cut]


def test_reader_sees_each_row_once_whenever_he_lists_the_files_and_whenever_the_joins(
    tmp_path: Path,
):
    fill(tmp_path, files=3)
    watched = Watched(tmp_path / "archive")
    watched.watch()
    old = watched.states[0][0]
    rows = {path: [path] for path in old}

    for hour in range(4):
        done = len(watched.states) - 1
        run(tmp_path, watched, NOW + hour * HOUR)
        steps = watched.states[done:]
        for one in steps[-1][1]:
            rows[one.file] = sorted(one.replaced)
        for first, (paths, _) in enumerate(steps):
            for last in range(first, len(steps)):
                for found in listings([paths, steps[last][0]]):
                    for _, joins in steps[last:]:
                        gone = markers.uncounted(found, joins)
                        told = [row for path in found if path not in gone for row in rows[path]]
                        assert sorted(told) == old


def test_reader_that_never_stops_counts_the_same(tmp_path: Path, archive: Archive):
    fill(tmp_path, archive, files=8)
    counts: list[int] = []
    passes = threading.Semaphore(0)
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            with query.opened(shelf(tmp_path, archive)) as connection:
                found = query.run(connection, "SELECT count(*) FROM exchanges")
                counts.extend(n for rows in found.batches() for (n,) in rows)
            counts.append(len(ids(tmp_path, archive)))
            passes.release()

    def wait() -> None:
        """Until a reading is over that began after now."""
        for _ in ("the one under way", "the next"):
            assert passes.acquire(timeout=60)
        while passes.acquire(blocking=False):
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for hour in range(4):
            run(tmp_path, archive, NOW + hour * HOUR)
            wait()
    finally:
        is_over.set()
        reader.join()

    assert set(counts) == {8}
    assert len(archive.paths(EXCHANGES)) == 1


# ---------------------------------------------------------------- what is erased meanwhile


class Interposed(DirectoryArchive):
    """Something happens, once: after a path was read, before it is put or deleted."""

    def __init__(self, directory: Path, event: tuple[str, str], act: Callable[[], object]) -> None:
        super().__init__(directory)
        self.event: tuple[str, str] | None = event
        self.act = act

    def get(self, path: str) -> bytes:
        content = super().get(path)
        self._happen("get", path)
        return content

    def put(self, path: str, file: Path) -> None:
        self._happen("put", path)
        super().put(path, file)

    def delete(self, path: str) -> None:
        self._happen("delete", path)
        super().delete(path)

    def _happen(self, what: str, path: str) -> None:
        if self.event and self.event[0] == what and self.event[1] in path:
            self.event = None
            self.act()


def erase_elsewhere(directory: Path) -> object:
    """Another machine erases an exchange, and feedback of which no tombstone tells."""
    there = shelf(directory / "other", DirectoryArchive(directory / "archive"))
    return erase(there, GONE, patience=0)


@pytest.mark.parametrize(
    "event", [("get", "/date="), ("put", markers.FOLDER), ("put", "exchanges"), ("put", "feedback")]
)
def test_what_is_erased_while_it_is_joined_is_gone_at_once(tmp_path: Path, event: tuple[str, str]):
    fill(tmp_path)
    archive = Interposed(tmp_path / "archive", event, lambda: erase_elsewhere(tmp_path))

    run(tmp_path, archive)
    at_once = seen(tmp_path)
    later = [after_run(tmp_path, NOW + hour * HOUR) for hour in range(1, 7)]

    assert archive.event is None
    assert not any("-1" in id for id in at_once)
    assert len(at_once) == 8
    assert later == [at_once] * 6
    assert callers(tmp_path) == {"app"}
    assert len(list((tmp_path / "archive").rglob("*.parquet"))) == 3


class Forgetful(Interposed):
    """Dies before it looks whether what it read was rewritten meanwhile."""

    def listed(self, prefix: str = "") -> list[Listed]:
        if "date=" in prefix:
            raise Killed
        return super().listed(prefix)


def test_what_nobody_could_look_at_any_more_is_gone_with_the_next_run(tmp_path: Path):
    fill(tmp_path)
    event = ("put", markers.FOLDER)
    archive = Forgetful(tmp_path / "archive", event, lambda: erase_elsewhere(tmp_path))

    with pytest.raises(Killed):
        run(tmp_path, archive)
    later = [after_run(tmp_path, NOW + hour * HOUR) for hour in range(1, 6)]

    assert later == [later[0]] * 5
    assert len(later[0]) == 8
    assert callers(tmp_path) == {"app"}


def callers(directory: Path) -> set[str]:
    """Of all rows of all files, whether they count or not."""
    files = (directory / "archive").rglob("*.parquet")
    rows = [pq.read_table(path, partitioning=None, columns=["caller"]) for path in files]
    return set(pa.concat_tables(rows)["caller"].to_pylist())


@pytest.mark.parametrize("kind", SCHEMAS)
def test_what_is_joined_while_it_is_erased_is_erased_there_too(tmp_path: Path, kind: str):
    fill(tmp_path)
    archive = Interposed(tmp_path / "archive", ("delete", kind), lambda: run(tmp_path))

    report = erase(shelf(tmp_path / "other", archive), GONE, patience=0)

    assert archive.event is None
    assert callers(tmp_path) == {"app"}
    assert (report.exchanges, report.shadows, report.feedback) == (1, 1, 2)


def test_what_is_erased_between_is_counted_once_and_nowhere(tmp_path: Path):
    fill(tmp_path)
    run(tmp_path)

    report = erase(shelf(tmp_path), GONE, patience=0)
    between = seen(tmp_path)
    later = [after_run(tmp_path, NOW + hour * HOUR) for hour in range(1, 7)]

    assert (report.exchanges, report.shadows, report.feedback) == (1, 1, 2)
    assert later == [between] * 6
    assert [len(shelf(tmp_path).stored(kind)) for kind in (EXCHANGES, FEEDBACK)] == [1, 1]
    assert not any("-1" in id for id in between)


def test_what_is_too_old_between_is_counted_once(tmp_path: Path):
    fill(tmp_path)
    run(tmp_path)

    report = compact(shelf(tmp_path), Retention(days=1), NOW + 60)

    assert report.expired == 12
    assert shelf(tmp_path).stored(EXCHANGES) == []
