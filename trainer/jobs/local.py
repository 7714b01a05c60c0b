"""Jobs on this machine: a queue, and a lock for each GPU, or for each share of the processor.

Two cards are two domains at a time. The locks are files, so that a second command waits for the
cards that the first one uses; they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from trainer.errors import Stopped, TrainerError
from trainer.jobs.job import Job, started

LOCKS = Path.home() / ".cache" / "headrace" / "locks"
"""One place for all of a user's runs."""
Tell = Callable[[str], None]


class Slot(NamedTuple):
    """A card, or a share of the processor."""

    name: str
    cores: int = 0
    """Of the processor; 0 for a GPU."""


def slots(gpus: Sequence[str], shares: int) -> list[Slot]:
    """One for each GPU, by CUDA's numbers; where there is none, so many shares of the processor."""
    if gpus:
        return [Slot(f"gpu-{number}") for number in gpus]
    return [Slot(f"cpu-{n}", max(1, (os.cpu_count() or 1) // shares)) for n in range(shares)]


def groups(found: Sequence[Slot], cards: int) -> list[list[Slot]]:
    """Slots by the number that a job takes; raises TrainerError where there are too few."""
    if cards > len(found):
        raise TrainerError(f"a job shall have {cards} cards, and here are {len(found)}")
    return [list(found[at : at + cards]) for at in range(0, len(found) - cards + 1, cards)]


class Queue:
    """Runs jobs, each on the first group of slots that is free."""

    def __init__(self, jobs: Sequence[Job], tell: Tell, locks: Path = LOCKS) -> None:
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._waiting.put(job)
        self._left = threading.Semaphore(0)
        self._count = len(jobs)
        self._tell = tell
        self._locks = locks
        self._running: set[subprocess.Popen[str]] = set()
        self._changing = threading.Lock()
        self._stopped = False
        self.codes: dict[str, int] = {}
        """Domain → exit code of the jobs that ended."""

    def run(self, among: Sequence[Sequence[Slot]]) -> dict[str, int]:
        """Run all; exit codes by domain. Raises Stopped where a signal asked for it: every job
        that ran has saved its state then."""
        with self._hearing():
            for group in among:
                # One that waits for a card of somebody else's must not keep us from ending.
                threading.Thread(target=self._work, args=[group], daemon=True).start()
            for _ in range(self._count):
                self._left.acquire()
        if self._stopped:
            raise Stopped("stopped; the same command goes on from there")
        return self.codes

    def _work(self, group: Sequence[Slot]) -> None:
        with ExitStack() as held:
            # In the order of their names, as every command does: nobody waits in a circle.
            for slot in group:
                held.enter_context(_locked(self._locks / f"{slot.name}.lock"))
            while True:
                try:
                    job = self._waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._one(job, group)
                finally:
                    self._left.release()

    def _one(self, job: Job, group: Sequence[Slot]) -> None:
        if self._stopped:
            return
        self._tell(f"{job.domain}: on {', '.join(slot.name for slot in group)}")
        self.codes[job.domain] = self._ended(job, _environment(group))
        self._tell(f"{job.domain}: {'done' if not self.codes[job.domain] else 'ended early'}")

    def _ended(self, job: Job, further: dict[str, str]) -> int:
        """The exit code of the job's last command that ran."""
        code = 0
        for arguments in job.commands:
            with self._changing:
                if self._stopped:
                    return Stopped.status
                process = started(arguments, job, further)
                self._running.add(process)
            code = process.wait()
            self._running.discard(process)
            if code:
                break
        return code

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C go to the jobs, which save and end."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        for process in list(self._running):
            process.send_signal(signal.SIGTERM)


def _environment(group: Sequence[Slot]) -> dict[str, str]:
    """What keeps a job to its slots."""
    if group[0].cores:
        return {"OMP_NUM_THREADS": str(group[0].cores)}
    return {"CUDA_VISIBLE_DEVICES": ",".join(slot.name.removeprefix("gpu-") for slot in group)}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
