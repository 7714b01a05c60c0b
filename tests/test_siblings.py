"""What workers count adds up; of what is so now, some does."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from proxy.siblings import merged


def worker(requests: int, in_flight: int, seconds: float) -> list[Metric]:
    registry = CollectorRegistry()
    Counter("requests", "…", ("status",), registry=registry).labels("200").inc(requests)
    Gauge("headrace_in_flight", "…", registry=registry).set(in_flight)
    Gauge("build", "…", registry=registry).set(1)
    Histogram("took", "…", buckets=(1, 2), registry=registry).observe(seconds)
    return list(registry.collect())


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
