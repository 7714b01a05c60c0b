"""Jobs on a Ray cluster: one task a domain, each with as many GPUs as it takes.

On the cluster that RAY_ADDRESS names, or on one that is started on this machine. Headrace must be
installed on its machines, and `--out`, `--adapters` and the recipes be paths that all of them see.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trainer.errors import TrainerError
from trainer.jobs.job import Job, started


def run(jobs: Sequence[Job], cards: int) -> dict[str, int]:
    """Exit codes by domain. `cards`: GPUs of a job, or cores where the cluster has no GPU."""
    try:
        import ray
    except ImportError as error:
        raise TrainerError(
            f"--on ray needs the extra `ray` ({error}); pip install 'headrace[ray]'"
        ) from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    has_gpus = bool(ray.cluster_resources().get("GPU"))
    needed = {"num_gpus": cards} if has_gpus else {"num_cpus": cards}
    # Tried once: a job that was cut off goes on when the command is given again.
    task = ray.remote(**needed, max_retries=0)(_ended)
    waiting = {job.domain: task.remote(msgspec.json.encode(job)) for job in jobs}
    return {domain: _code(one) for domain, one in waiting.items()}


def _code(waiting: object) -> int:
    import ray

    try:
        return int(ray.get(waiting))
    except ray.exceptions.RayError:
        return 1


def _ended(encoded: bytes) -> int:
    """Runs where Ray says, with the GPUs that it names in the environment."""
    job = msgspec.json.decode(encoded, type=Job)
    for arguments in job.commands:
        if code := started(arguments, job, {}).wait():
            return code
    return 0
