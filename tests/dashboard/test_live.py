from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from proxy.dashboard.live import Counts, Lookout, between, counts, quantile
from tests.dashboard.visiting import get
from tests.serving import Engine, call, finish, listening, serving_with, settings
from tests.wire import ask


def counted(at: float, **fields: object) -> Counts:
    whole: dict[str, object] = {
        "at": at,
        "requests": 0.0,
        "failed": 0.0,
        "answered": {},
        "times": {},
        "fallbacks": {},
        "in_flight": 0.0,
        "record": {},
    }
    return Counts(**(whole | fields))


WHO = ("api", "local")


def test_rates_are_what_came_between_two_looks():
    former = counted(100, requests=10, answered={WHO: 4.0}, fallbacks={"invalid": 1.0})
    now = counted(
        110, requests=30, failed=5, answered={WHO: 14.0}, fallbacks={"invalid": 3.0, "new": 1.0}
    )

    live = between(former, now)

    assert (live.over_s, live.requests_per_s, live.failed_per_s) == (10, 2.0, 0.5)
    assert [(pace.per_s, pace.requests) for pace in live.paces] == [(1.0, 14.0)]
    assert [(one.reason, one.per_s) for one in live.fallbacks] == [("invalid", 0.2), ("new", 0.1)]


def test_first_look_has_no_rates():
    now = counted(100, requests=10, answered={WHO: 4.0})

    live = between(now, now)

    assert (live.requests_per_s, live.p50_s, live.paces[0].per_s) == (0.0, None, 0.0)


def test_server_that_started_anew_counts_from_nothing():
    live = between(counted(100, requests=90, answered={WHO: 90.0}), counted(110, requests=20))

    assert live.requests_per_s == 2.0


def test_times_are_of_what_came_between():
    former = counted(100, answered={WHO: 100.0}, times={WHO: {1.0: 0.0, 2.0: 100.0, 4.0: 100.0}})
    now = counted(110, answered={WHO: 104.0}, times={WHO: {1.0: 4.0, 2.0: 104.0, 4.0: 104.0}})

    live = between(former, now)

    assert live.p50_s == live.paces[0].p50_s == 0.5


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 1.5), (0.25, 1.0), (0.75, 2.0), (0.8, 2.0), (0.1, 0.4)]
)
def test_quantile_goes_straight_between_bounds(share: float, expected: float):
    """As Prometheus: 4 answers up to 1 s… the last ones above all bounds."""
    bounds = {1.0: 5.0, 2.0: 15.0, float("inf"): 20.0}

    assert quantile(bounds, share) == pytest.approx(expected)


def test_quantile_of_nothing_is_none():
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0}, 0.5) is None


def test_counts_are_read_from_a_registry():
    registry = CollectorRegistry()
    requests = Counter("headrace_requests", "", ("domain", "status", "error"), registry=registry)
    times = Histogram(
        "gen_ai_server_request_duration_seconds",
        "",
        ("domain", "backend", "adapter"),
        registry=registry,
        buckets=(1.0, 2.0),
    )
    requests.labels("api", "200", "").inc(3)
    requests.labels("api", "503", "backend_unavailable").inc()
    times.labels("api", "local", "api-v1").observe(0.5)
    times.labels("api", "local", "").observe(1.5)

    found = counts(registry.collect(), at=7)

    assert (found.at, found.requests, found.failed) == (7, 4, 1)
    assert found.answered == {WHO: 2.0}
    assert found.times[WHO] == {1.0: 1.0, 2.0: 2.0, float("inf"): 2.0}


async def test_page_tells_what_was_answered():
    engine = Engine("local", [call("ping", '{"host":"a"}'), finish()])
    async with serving_with(settings("local"), engine) as url:
        for _ in range(3):
            await ask(url)
        live = (await get(url, "/live.json")).json["now"]

    assert [(pace["domain"], pace["backend"], pace["requests"]) for pace in live["paces"]] == [
        ("all", "local", 3.0)
    ]
    assert set(live["record"]) == {"waiting", "failing", "dropped", "lost"}


async def test_history_is_what_was_seen():
    from proxy.app import assemble
    from proxy.catalog import Catalog

    engine = Engine("local", [call("ping", '{"host":"a"}'), finish()])
    proxy = assemble(settings("local"), Catalog({"local": engine}, {}), None)
    assert proxy.dashboard is not None
    lookout: Lookout = proxy.dashboard._lookout

    async with listening(proxy.app) as url:
        await lookout.look()
        await ask(url)
        await lookout.look()
        history = (await get(url, "/live.json")).json["history"]

    assert len(history["at"]) == 1
    assert list(history["lines"]) == ["all · local"]
    assert history["lines"]["all · local"][0] > 0
    assert history["p50_s"][0] is not None
