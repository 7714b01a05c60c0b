"""Runs of a tiny base in this process: promoted, refused, nothing to do, raced."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from proxy.protocol import adapter, champions, tombstones
from tests.trainer.flywheel import settings_files, traffic
from trainer import dataset, gate
from trainer.errors import FlywheelError, Locked, TrainerError
from trainer.evaluate import read as read_report
from trainer.flywheel import chronicle, triggers
from trainer.flywheel import run as flywheel
from trainer.flywheel.lock import holder
from trainer.flywheel.settings import Domain, domains
from trainer.flywheel.state import STEPS, read
from trainer.flywheel.steps import verdict_of
from trainer.registry.taint import learnt_from
from trainer.subject import Subject


@dataclass
class Heard:
    """Keeps what is told."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def tell(self, event: str, **facts: object) -> None:
        self.events.append((event, facts))

    def progress(self, what: str, done: int, total: int | None) -> None:
        pass


def domain(path: Path) -> Domain:
    (found,) = domains(path)
    return found


def files(directory: Path) -> dict[str, int]:
    """Every file below a directory and when it was written, in nanoseconds."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in found}


@dataclass
class Twice:
    """A domain with two runs: the first was promoted, the second, with more traffic and rules that
    it cannot meet, refused."""

    path: Path
    first: flywheel.Ended
    second: flywheel.Ended

    @property
    def domain(self) -> Domain:
        return domain(self.path)

    def place(self, ended: flywheel.Ended) -> Path:
        return self.domain.runs / ended.run


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, record: Path, base: Path) -> Twice:
    directory = tmp_path_factory.mktemp("twice")
    ours = directory / "record"
    shutil.copytree(record, ours)
    path = settings_files.write(directory, ours, base)
    first = flywheel.run(domain(path), Heard())
    traffic.record(ours, 120, 160)
    settings_files.write(
        directory, ours, base, gate={"margin": 0.1}, evaluation={"most": 40, "base": False}
    )
    return Twice(path, first, flywheel.run(domain(path), Heard(), cause="40 new rows"))


# ------------------------------------------------------------------ what a run comes to


def test_a_candidate_that_passes_becomes_the_champion(twice):
    assert twice.first.outcome == "promoted"
    assert read(twice.place(twice.first)).manifest.adapter == "all-v1"


def test_a_refused_candidate_leaves_the_champion(twice):
    assert (twice.second.outcome, twice.second.reason[:14]) == ("refuse", "Refuse all-v2:")
    assert champions.read(twice.domain.adapters).serving == {"all": "all-v1"}
    assert adapter.read(twice.domain.adapters / "all-v2").id == "all-v2"


def test_all_are_asked_the_same_rows(twice):
    reports = [read_report(p) for p in (twice.place(twice.second) / "evaluation").glob("*.json")]
    asked = {report.subject.adapter: {a.row for a in report.answers} for report in reports}

    assert asked.keys() == {"all-v1", "all-v2", "cloud"}
    assert asked["all-v1"] == asked["all-v2"] == asked["cloud"] != set()


def test_the_clouds_recorded_answers_are_the_reference(twice):
    (path,) = (twice.place(twice.second) / "evaluation").glob("cloud-*.json")
    report = read_report(path)

    assert report.figures["call exact"].share == 1
    assert {answer.model for answer in report.answers} == {"gpt-4o-2024-08-06"}


def test_a_page_shows_candidate_champion_and_cloud(twice):
    page = (twice.place(twice.second) / "report" / "index.html").read_text()

    assert all(f"{role} · " in page for role in ("candidate", "champion", "cloud"))


def test_a_run_reads_all_that_was_recorded_up_to_its_begin(twice):
    first, second = (read(twice.place(one)).manifest for one in (twice.first, twice.second))

    assert (first.new_rows, second.new_rows, second.former) == (120, 40, first.id)
    assert second.step("rows").figures["rows"] == 160


def test_the_sealed_side_decides_last_and_stays_shut_for_who_failed_before(twice):
    first, second = (twice.place(one) / "dataset" for one in (twice.first, twice.second))

    assert [one.candidate for one in dataset.openings(first)] == ["all-v1"]
    assert gate.read(verdict_of(read(twice.place(twice.first)))).sealed
    assert dataset.openings(second) == []


def test_all_steps_are_told_in_order(record, base, tmp_path, twice):
    log = (twice.place(twice.first) / "log.jsonl").read_text().splitlines()

    started = [line for line in log if '"event":"step_started"' in line]
    assert [step for step in STEPS if any(f'"step":"{step}"' in one for one in started)] == [*STEPS]
    assert '"event":"run_finished"' in log[-1] and '"outcome":"promoted"' in log[-1]


# ------------------------------------------------------------------ when nothing is done


def test_without_enough_new_rows_nothing_is_done(twice):
    before = files(twice.domain.runs)

    ended = flywheel.run(twice.domain, Heard())

    assert ended.outcome == "nothing to do"
    assert ended.reason == "0 new clean rows since the last run; `least_new` asks for 20."
    assert {p for p in files(twice.domain.runs) if "lock.json" not in p} == {
        p for p in before if "lock.json" not in p
    }


def test_a_dry_run_changes_nothing(record, base, tmp_path):
    path = settings_files.write(tmp_path, record, base)
    before, heard = files(tmp_path), Heard()

    ended = flywheel.dry_run(domain(path), heard)

    assert (ended.outcome, ended.reason) == ("would run", "make all-v1 with 120 new rows")
    assert heard.events[0][0] == "would_begin"
    assert files(tmp_path) == before


def test_of_two_runs_one_wins_and_the_other_says_who(record, base, tmp_path):
    path = settings_files.write(tmp_path, record, base, least_new=1000)
    is_in, may_go = threading.Event(), threading.Event()

    class Slow(Heard):
        def tell(self, event: str, **facts: object) -> None:
            super().tell(event, **facts)
            is_in.set()
            may_go.wait()

    slow = Slow()
    winner = threading.Thread(target=flywheel.run, args=(domain(path), slow))
    winner.start()
    is_in.wait()
    with pytest.raises(Locked, match=r"all is being run by process \d+ on .+, since"):
        flywheel.run(domain(path), Heard())
    may_go.set()
    winner.join()

    assert slow.events[0][0] == "nothing_to_do"
    assert flywheel.run(domain(path), Heard()).outcome == "nothing to do"


# ------------------------------------------------------------------ what goes wrong


def test_a_run_that_failed_holds_no_lock(record, base, tmp_path):
    path = settings_files.write(tmp_path, tmp_path / "nothing", base)

    with pytest.raises(TrainerError, match="there is no such record"):
        flywheel.run(domain(path), Heard())

    assert holder(domain(path).runs) is None


def test_a_run_that_failed_before_its_bundle_is_over(record, base, tmp_path):
    path = settings_files.write(tmp_path, record, base, training={"max_tokens": 8})

    with pytest.raises(TrainerError, match="no row is left"):
        flywheel.run(domain(path), Heard(), anyway=True)

    manifest = flywheel.last_run(domain(path)).manifest
    assert (manifest.state, manifest.outcome) == ("finished", "failed")
    assert manifest.reason.startswith("dataset: no row is left")
    assert manifest.step("dataset").state == "failed"


def test_a_later_step_that_failed_is_tried_again(twice, tmp_path):
    path = copied(twice, tmp_path)
    last = flywheel.last_run(domain(path))
    last.forget("gate", "all-v1")
    shutil.move(tmp_path / "adapters" / "all-v2", tmp_path / "away")

    with pytest.raises(FlywheelError, match="all-v2"):
        flywheel.run(domain(path), Heard())
    shutil.move(tmp_path / "away", tmp_path / "adapters" / "all-v2")
    ended = flywheel.run(domain(path), Heard())

    assert ended.outcome == "refuse"
    assert read(domain(path).runs / ended.run).manifest.step("gate").tries == 2


def copied(twice: Twice, directory: Path) -> Path:
    """The settings of a copy that a test may change."""
    shutil.copytree(twice.path.parent, directory, dirs_exist_ok=True)
    settings = (directory / "flywheel.yaml").read_text()
    (directory / "flywheel.yaml").write_text(
        settings.replace(str(twice.path.parent), str(directory))
    )
    return directory / "flywheel.yaml"


def test_a_step_is_forced_with_those_after_it(twice, tmp_path):
    path = copied(twice, tmp_path)

    ended = flywheel.run(domain(path), Heard(), forced="gate")

    tries = {step.name: step.tries for step in read(domain(path).runs / ended.run).manifest.steps}
    assert ended.run == twice.second.run and ended.outcome == "refuse"
    assert (tries["evaluate"], tries["gate"], tries["report"]) == (1, 1, 1)


def test_no_step_is_forced_that_would_change_a_bundle(twice):
    with pytest.raises(FlywheelError, match="all-v2 is registered, and a bundle never changes"):
        flywheel.run(twice.domain, Heard(), forced="train")


def test_nobody_looks_twice_at_the_sealed_rows(twice, tmp_path):
    path = copied(twice, tmp_path)
    shutil.rmtree(domain(path).runs / twice.second.run)

    with pytest.raises(FlywheelError, match="has had its look at the sealed rows"):
        flywheel.run(domain(path), Heard(), forced="gate")


def test_a_candidate_that_was_compared_with_another_champion_waits(twice, tmp_path):
    path = copied(twice, tmp_path)
    settings_files.write(tmp_path, tmp_path / "record", "unused")
    last = flywheel.last_run(domain(path))
    verdict = gate.read(verdict_of(last))
    last.forget("promote", "all-v0")
    gate.write(promoting(verdict), verdict_of(last))

    with pytest.raises(FlywheelError, match="all-v1 became the champion while all-v2"):
        flywheel.run(domain(path), Heard())


def promoting(verdict: gate.Verdict) -> gate.Verdict:
    return gate.Verdict(
        candidate=verdict.candidate,
        decision="promote",
        sentence="By hand.",
        rules=[],
        power="",
        at=verdict.at,
    )


# ------------------------------------------------------------------ status, history, diff


def test_status_tells_champion_last_run_and_triggers(twice):
    status = chronicle.status(twice.domain)

    assert (status.champion, status.candidate, status.working) == ("all-v1", None, None)
    assert (status.run.adapter, status.run.outcome) == ("all-v2", "refuse")
    names = ["rows", "drift", "agreement", "feedback", "erasure"]
    assert [one.name for one in status.triggers] == names


def test_history_tells_every_run_with_its_cause(twice):
    first, second = chronicle.history(twice.domain)

    assert (first.cause, first.outcome) == ("manual", "promoted")
    assert (second.cause, second.outcome, second.step) == ("40 new rows", "refuse", "")


def test_a_diff_shows_rows_figures_and_verdict(twice):
    first, second = (chronicle.find([twice.domain], name) for name in ("all-v1", "all-v2"))

    found = chronicle.diff(first, second)

    assert "gate.margin: None → 0.1" in found.recipe
    assert "rows.rows: 120 → 160" in found.figures
    assert "outcome: promoted → refuse" in found.verdict
    assert any(line.startswith("train: ") and line.endswith("added") for line in found.dataset)


def test_an_interrupted_run_is_told_as_such(twice, tmp_path):
    path = copied(twice, tmp_path)
    flywheel.last_run(domain(path)).forget("report", "all-v1")

    past = chronicle.history(domain(path))[-1]

    assert (past.state, past.step) == ("interrupted", "report")


def test_new_rows_are_due_from_their_number_on(twice, tmp_path):
    path = copied(twice, tmp_path)
    traffic.record(tmp_path / "record", 160, 165)

    (rows, drift, *_) = triggers.readings(domain(path))

    assert (rows.value, rows.threshold, rows.due) == (5, 500, False)
    assert (drift.value, drift.due) == (0, False)


def erase(record: Path, exchanges: Iterable[str], at: float) -> None:
    """Tombstones, as `headrace record erase` leaves them."""
    folder = record / tombstones.FOLDER
    folder.mkdir(exist_ok=True)
    gone = [
        tombstones.Tombstone(id=id, tenant="t", erased_at=at, reasons=["caller"])
        for id in exchanges
    ]
    (folder / f"{at:.0f}{tombstones.SUFFIX}").write_bytes(tombstones.encode(gone))


def erasure(path: Path) -> triggers.Reading:
    (found,) = (one for one in triggers.readings(domain(path)) if one.name == "erasure")
    return found


def test_a_champion_that_learnt_from_what_was_erased_is_trained_anew(twice, base, tmp_path):
    path = copied(twice, tmp_path)
    before = erasure(path)
    learnt = sorted(learnt_from(domain(path).registry, "all-v1"))[:3]
    erase(tmp_path / "record", [*learnt, "of another domain"], time.time() - 86_400)
    long_ago = erasure(path)
    erase(tmp_path / "record", learnt[:1], time.time())
    now = erasure(path)
    settings_files.write(
        tmp_path,
        tmp_path / "record",
        base,
        gate=settings_files.GATE_OPEN | {"champion_margin": 0.9},
        evaluation={"most": 10, "base": False},
    )
    ended = flywheel.run(domain(path), Heard(), anyway=triggers.is_owed([now]))

    assert (before.due, before.value) == (False, 0)
    assert (long_ago.due, long_ago.value) == (False, 3)
    assert (now.due, now.value) == (True, 3)
    verdict = gate.read(verdict_of(read(domain(path).runs / ended.run)))
    assert "learnt from what was erased since" in str([one.sentence for one in verdict.rules])
    assert champions.read(domain(path).adapters).serving == {"all": "all-v3"}
    assert erasure(path).value == 0


# ------------------------------------------------------------------ a general adapter


def test_the_gate_may_choose_a_general_adapter(twice, base, tmp_path):
    path = copied(twice, tmp_path)
    champions.appoint(tmp_path / "adapters", "everything", "all-v2", "made for all domains")
    settings_files.write(
        tmp_path,
        tmp_path / "record",
        base,
        gate=settings_files.GATE_OPEN | {"champion_margin": 0.01, "sealed": False},
        evaluation={"most": 20, "base": False},
        general="everything",
    )

    undecided = flywheel.run(domain(path), Heard(), anyway=True)
    place = domain(path).runs / undecided.run
    before = read(place).manifest.step("gate").figures
    # As if the general adapter had said what the cloud said.
    (ours,) = (place / "evaluation").glob("general-all-v2-*.json")
    (cloud,) = (place / "evaluation").glob("cloud-*.json")
    perfect = msgspec.structs.replace(read_report(cloud), subject=Subject("all-v2"))
    ours.write_bytes(msgspec.json.encode(perfect))
    decided = flywheel.run(domain(path), Heard(), forced="gate")

    assert undecided.outcome == "not decidable"
    assert str(before["choice"]).startswith("all-v3 is the simplest that no other is shown")
    assert decided.outcome == "promoted"
    after = read(place).manifest.step("gate").figures
    assert "all-v2 is" in str(after["choice"]) and "+100.0 points beside all-v3" in str(
        after["choice"]
    )
    assert champions.read(tmp_path / "adapters").serving["all"] == "all-v2"
