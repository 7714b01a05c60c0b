"""Where rows are judged: on one core, on several, or on a Ray cluster, with the same results.

Rows go out in batches and come back in their order; a few batches are on their way at a time, so
that memory stays bounded however many rows there are.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from trainer.curate.chain import Judge, Judged, Plan
from trainer.errors import TrainerError
from trainer.rows import Row

BATCH = 256
"""Rows. Chosen: some tens of milliseconds of work, so that handing over is little beside it."""
_WAITING = 4
"""Batches for each process that may wait at a time."""
_WINDOW = 64
"""Batches that are given to Ray Data at a time; it cannot take rows while it works."""

Batch: TypeAlias = list[Row]
Executor: TypeAlias = Callable[[Plan, Iterable[Batch]], Iterator[tuple[Batch, list[Judged]]]]

_plan = msgspec.msgpack.Decoder(Plan)
_rows = msgspec.msgpack.Decoder(list[Row])
_judged = msgspec.msgpack.Decoder(list[Judged])
_encode = msgspec.msgpack.encode


def executor(on: str) -> Executor:
    """`1` or another number of cores, `all` of them, or `ray`; raises TrainerError for others."""
    if on == "ray":
        return ray
    cores = os.cpu_count() or 1 if on == "all" else int(on) if on.isdecimal() else 0
    if cores < 1:
        raise TrainerError(f"--on {on}: say a number of cores, `all`, or `ray`")
    return one_core if cores == 1 else functools.partial(processes, cores=cores)


def batched(rows: Iterable[Row]) -> Iterator[Batch]:
    """The rows in batches of BATCH."""
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        yield batch


def one_core(plan: Plan, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Judged]]]:
    """Here and now."""
    judge = Judge(plan)
    for batch in batches:
        yield batch, judge(batch)


def processes(
    plan: Plan, batches: Iterable[Batch], cores: int
) -> Iterator[tuple[Batch, list[Judged]]]:
    """In processes of this machine. They are started afresh: threads here do not outlive a fork."""
    packed = _encode(plan)
    waiting: deque[tuple[Batch, Future[bytes]]] = deque()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for batch in batches:
            waiting.append((batch, pool.submit(judge_packed, packed, _encode(batch))))
            if len(waiting) > _WAITING * cores:
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())


def _done(one: tuple[Batch, Future[bytes]]) -> tuple[Batch, list[Judged]]:
    return one[0], _judged.decode(one[1].result())


def judge_packed(plan: bytes, rows: bytes) -> bytes:
    """A batch and its plan as bytes, judged, as bytes: what goes from process to process."""
    return _encode(_judge(plan)(_rows.decode(rows)))


@functools.lru_cache(maxsize=1)
def _judge(plan: bytes) -> Judge:
    """One for each process: tokenizers, detectors and sandboxes are slow to make."""
    return Judge(_plan.decode(plan))


# ---------------------------------------------------------------- Ray


def ray(plan: Plan, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Judged]]]:
    """On the cluster that RAY_ADDRESS names, or on one that is started on this machine.

    Headrace must be installed on all of its machines.
    """
    try:
        import ray as cluster
        import ray.data
    except ImportError as error:
        raise TrainerError(
            f"--on ray needs the extra `ray` ({error}); run `make ray-setup`"
        ) from error
    if not cluster.is_initialized():
        cluster.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    packed = cluster.put(_encode(plan))
    rest = iter(batches)
    while window := list(islice(rest, _WINDOW)):
        yield from zip(window, _on_ray(window, packed), strict=True)


def _on_ray(window: list[Batch], plan: Any) -> Iterator[list[Judged]]:
    import ray.data

    items = [{"number": n, "rows": _encode(batch)} for n, batch in enumerate(window)]
    done = ray.data.from_items(items).map(_judged_on_ray, fn_args=[plan]).take_all()
    for one in sorted(done, key=lambda one: int(one["number"])):
        yield _judged.decode(one["judged"])


def _judged_on_ray(item: dict[str, Any], plan: Any) -> dict[str, Any]:
    import ray

    packed = ray.get(plan) if isinstance(plan, ray.ObjectRef) else plan
    return {"number": item["number"], "judged": judge_packed(packed, item["rows"])}
