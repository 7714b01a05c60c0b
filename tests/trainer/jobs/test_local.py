"""Jobs on this machine: beside each other, never two on one slot, and stopped with grace."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from trainer.errors import Stopped, TrainerError
from trainer.jobs.job import LOG, Job, plan, require_distinct, require_done
from trainer.jobs.local import Queue, Slot, groups, slots

# Says that it is there, and waits until the other one is.
MEETS = """
import sys, time, pathlib
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
end = time.monotonic() + 60
while not other.exists():
    time.sleep(0.01)
    assert time.monotonic() < end, "nobody came"
"""
# Fails where somebody else is at it.
ALONE = """
import sys, time, pathlib
taken = pathlib.Path(sys.argv[1])
taken.touch(exist_ok=False)
time.sleep(0.05)
taken.unlink()
"""
SAVES = """
import sys, time, pathlib, signal
def stop(number, frame):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


def job(directory: Path, domain: str, script: str, *arguments: object) -> Job:
    command = ["-c", script, *map(str, arguments)]
    return Job(domain, str(directory / domain), [command])


def queue(directory: Path, *jobs: Job) -> Queue:
    return Queue(jobs, lambda told: None, directory / "locks")


def test_two_slots_are_two_domains_at_a_time(tmp_path):
    first, second = tmp_path / "a-is-there", tmp_path / "b-is-there"
    jobs = (job(tmp_path, "a", MEETS, first, second), job(tmp_path, "b", MEETS, second, first))

    codes = queue(tmp_path, *jobs).run(groups(slots([], 2), 1))

    assert codes == {"a": 0, "b": 0}


def test_one_slot_takes_one_job_after_the_other(tmp_path):
    jobs = [job(tmp_path, name, ALONE, tmp_path / "taken") for name in "abcd"]

    codes = queue(tmp_path, *jobs).run(groups(slots([], 1), 1))

    assert codes == dict.fromkeys("abcd", 0)


def test_a_card_that_another_command_uses_is_left_alone(tmp_path):
    jobs = [job(tmp_path, name, ALONE, tmp_path / "taken") for name in "ab"]
    told: list[str] = []
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / "cpu-0.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        codes = Queue(jobs, told.append, tmp_path / "locks").run(groups(slots([], 2), 1))

    assert codes == {"a": 0, "b": 0}
    assert told[::2] == ["a: on cpu-1", "b: on cpu-1"]


def test_a_job_knows_its_card(tmp_path):
    told = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"

    queue(tmp_path, job(tmp_path, "a", told)).run(groups(slots(["3", "5"], 1), 2))

    assert (tmp_path / "a" / LOG).read_text() == "3,5\n"


def test_shares_of_the_processor_are_told_to_its_libraries(tmp_path):
    told = "import os; print(os.environ['OMP_NUM_THREADS'])"

    queue(tmp_path, job(tmp_path, "a", told)).run([[Slot("cpu-0", 3)]])

    assert (tmp_path / "a" / LOG).read_text() == "3\n"


def test_a_job_that_wants_more_cards_than_there_are_is_refused():
    with pytest.raises(TrainerError, match="shall have 2 cards, and here are 1"):
        groups(slots(["0"], 1), 2)


def test_what_failed_is_named_with_its_log_and_the_others_are_done(tmp_path):
    jobs = [job(tmp_path, "a", "raise SystemExit(7)"), job(tmp_path, "b", "print('fine')")]

    codes = queue(tmp_path, *jobs).run(groups(slots([], 1), 1))

    assert codes == {"a": 7, "b": 0}
    with pytest.raises(TrainerError, match=rf"1 of 2 failed; see .*/a/{LOG}$"):
        require_done(codes, jobs)


def test_after_a_command_that_failed_comes_no_other(tmp_path):
    made = Job("a", str(tmp_path / "a"), [["-c", "raise SystemExit(3)"], ["-c", "print('on')"]])

    assert queue(tmp_path, made).run(groups(slots([], 1), 1)) == {"a": 3}
    assert (tmp_path / "a" / LOG).read_text() == ""


def test_a_signal_lets_jobs_save_and_starts_no_other(tmp_path):
    jobs = (job(tmp_path, "a", SAVES, tmp_path / "state"), job(tmp_path, "b", "print('late')"))

    def stop() -> None:
        log = tmp_path / "a" / LOG
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()

    with pytest.raises(Stopped, match="the same command goes on"):
        queue(tmp_path, *jobs).run(groups(slots([], 1), 1))

    assert (tmp_path / "state").read_text() == "saved"
    assert not (tmp_path / "b").exists()


# ---------------------------------------------------------------- command lines


def test_a_job_of_one_card_is_the_plain_command(tmp_path):
    (made,) = plan({"api": "api"}, tmp_path / "runs", tmp_path / "adapters", None, 1)

    (command,) = made.commands
    assert command[:5] == ["-m", "trainer", "train", "--recipe", "api"]
    assert command[command.index("--out") + 1] == str(tmp_path / "runs" / "api") == made.run


def test_a_job_of_two_cards_builds_its_dataset_once_and_then_launches_two(tmp_path):
    (made,) = plan({"api": "api"}, tmp_path / "runs", tmp_path / "adapters", None, 2)

    build, launch = made.commands
    assert build[2:4] == ["dataset", "build"]
    assert "--nproc-per-node=2" in launch
    assert launch[launch.index("--dataset") + 1] == build[build.index("--out") + 1]


def test_two_recipes_of_one_domain_are_refused():
    with pytest.raises(TrainerError, match="two recipes train api"):
        require_distinct(["api", "docs", "api"])
