"""What workers count adds up; of what is so now, some does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from proxy.siblings import Place, Siblings, Unheard, merged


def worker(requests: int, in_flight: int, seconds: float) -> list[Metric]:
    registry = CollectorRegistry()
    Counter("requests", "…", ("status",), registry=registry).labels("200").inc(requests)
    Gauge("headrace_in_flight", "…", registry=registry).set(in_flight)
    Gauge("build", "…", registry=registry).set(1)
    Histogram("took", "…", buckets=(1, 2), registry=registry).observe(seconds)
    return list(registry.collect())


def siblings(directory: Path, number: int) -> Siblings:
    parent, _ = os.pipe()
    return Siblings(Place(number, 2, -1, parent, directory))


async def test_who_asks_gets_what_the_other_tells(tmp_path: Path) -> None:
    first, second = siblings(tmp_path, 0), siblings(tmp_path, 1)

    async def told() -> bytes:
        return b"seven\n" * 300_000

    second.tell("number", told)
    async with first.telling(), second.telling():
        assert await first.ask("number", 10) == [b"seven\n" * 300_000]
        with pytest.raises(Unheard):
            await first.ask("colour", 10)


async def test_who_is_not_there_is_said_to_be_unheard(tmp_path: Path) -> None:
    with pytest.raises(Unheard, match="ask again"):
        await siblings(tmp_path, 0).ask("number", 10)


def test_counters_histograms_and_loads_add_up_and_facts_do_not() -> None:
    values = {
        (sample.name, sample.labels.get("le")): sample.value
        for metric in merged([worker(2, 3, 0.5), worker(5, 4, 1.5)])
        for sample in metric.samples
    }

    assert values["requests_total", None] == 7
    assert values["headrace_in_flight", None] == 7
    assert values["build", None] == 1
    assert (values["took_bucket", "1.0"], values["took_bucket", "2.0"]) == (1, 2)
    assert values["took_sum", None] == 2.0
