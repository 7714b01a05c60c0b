"""One training as command lines, so that it can run in another process, or on another machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from trainer.errors import TrainerError

LOG = "log.txt"
"""What a job printed, in its run's directory."""


class Job(msgspec.Struct, frozen=True):
    """One domain's training."""

    domain: str
    run: str
    """Directory of the run, absolute: a stopped job goes on there."""
    commands: list[list[str]]
    """Arguments of Python, one command after the other, until one fails."""


def plan(
    recipes: Mapping[str, str], out: Path, adapters: Path, dataset: Path | None, cards: int
) -> list[Job]:
    """The jobs of some recipes (domain → file or name).

    With more than one of the `cards`, as many processes train one adapter together; the dataset is
    then built before, once.
    """
    return [_job(domain, name, out, adapters, dataset, cards) for domain, name in recipes.items()]


def _job(
    domain: str, recipe: str, out: Path, adapters: Path, dataset: Path | None, cards: int
) -> Job:
    run = (out / domain).absolute()
    name = str(Path(recipe).absolute()) if Path(recipe).exists() else recipe
    trainer = ["-m", "trainer"]
    train = [*trainer, "train", "--recipe", name, "--out", str(run)]
    train += ["--adapters", str(adapters.absolute())]
    if dataset is not None:
        train += ["--dataset", str(dataset.absolute())]
    if cards == 1:
        return Job(domain, str(run), [train])
    commands = []
    if dataset is None:
        built = str(run / "dataset")
        commands.append([*trainer, "dataset", "build", "--recipe", name, "--out", built])
        train += ["--dataset", built]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={cards}"]
    return Job(domain, str(run), [*commands, [*launch, *train]])


def require_distinct(domains: Sequence[str]) -> None:
    """Two trainings of one domain at a time would write the same next version."""
    twice = sorted({domain for domain in domains if domains.count(domain) > 1})
    if twice:
        raise TrainerError(f"two recipes train {', '.join(twice)}; train them one after the other")


def started(
    arguments: Sequence[str], job: Job, further: Mapping[str, str]
) -> subprocess.Popen[str]:
    """One of a job's commands; what it prints is added to the job's log."""
    Path(job.run).mkdir(parents=True, exist_ok=True)
    with (Path(job.run) / LOG).open("a") as log:
        return subprocess.Popen(  # noqa: S603  # our own interpreter and modules
            [sys.executable, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | further,
            text=True,
        )


def require_done(codes: Mapping[str, int], jobs: Sequence[Job]) -> None:
    """Raises TrainerError naming the jobs that failed, and where they say why."""
    failed = [f"{job.run}/{LOG}" for job in jobs if codes.get(job.domain, 1)]
    if failed:
        raise TrainerError(f"{len(failed)} of {len(jobs)} failed; see {', '.join(failed)}")
