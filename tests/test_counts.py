"""Our numbers are told as the library's own would be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, disable_created_metrics
from prometheus_client import Counter as LibraryCounter
from prometheus_client import Histogram as LibraryHistogram

from proxy.counts import Counter, Histogram

BOUNDS = (0.001, 0.5, 1.0, 64.0)
names = st.sampled_from(["a", "b", 'quoted "c"'])
values = st.floats(0, 100, allow_nan=False) | st.sampled_from(BOUNDS)


def samples(metric: Metric) -> list[tuple[str, dict[str, str], float]]:
    return [(s.name, s.labels, float(s.value)) for s in metric.samples]


@given(counted=st.lists(names))
def test_a_counter_is_told_as_the_library_tells_it(counted: list[str]):
    disable_created_metrics()
    library = LibraryCounter("n", "about", ["who"], registry=CollectorRegistry())
    ours = Counter("n", "about", ("who",))

    for name in counted:
        library.labels(name).inc()
        ours.add(name)

    (expected,) = library.collect()
    assert sorted(map(repr, samples(ours.told()))) == sorted(map(repr, samples(expected)))


@given(observed=st.lists(st.tuples(names, values)))
def test_a_histogram_is_told_as_the_library_tells_it(observed: list[tuple[str, float]]):
    disable_created_metrics()
    library = LibraryHistogram("n", "about", ["who"], registry=CollectorRegistry(), buckets=BOUNDS)
    ours = Histogram("n", "about", BOUNDS, ("who",))

    for name, value in observed:
        library.labels(name).observe(value)
        ours.observe(value, name)

    (expected,) = library.collect()
    assert sorted(map(repr, samples(ours.told()))) == sorted(map(repr, samples(expected)))
