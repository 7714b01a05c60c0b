"""What is so now: the record, the engines' servers, adapters, requests under way. For /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol, get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from proxy.balance import State
from proxy.catalog import Catalog
from proxy.limits import Limits
from proxy.recorder import Recorder
from proxy.shadow_lane import LaneStatus

if TYPE_CHECKING:
    from proxy.backends.replicas import ReplicaStatus


class Pool(Protocol):
    """Servers of one engine."""

    def status(self) -> Sequence[ReplicaStatus]: ...


class Lanes(Protocol):
    """The shadowing of all domains that have it."""

    def status(self) -> Mapping[str, LaneStatus]: ...

    def trials(self) -> Mapping[str, LaneStatus]: ...


class Gauges:
    """Reads the state of the parts that have one. Made once; keeps nothing."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        domains: Iterable[str],
        limits: Limits,
        recorder: Recorder | None,
        pools: Mapping[str, Pool],
        shadows: Lanes | None = None,
    ) -> None:
        self._catalog = catalog
        self._domains = list(domains)
        self._limits = limits
        self._recorder = recorder
        self._pools = pools
        self._shadows = shadows

    def read(self) -> list[Metric]:
        """The state of now; call it in the event loop, where nothing changes meanwhile."""
        return [
            GaugeMetricFamily(
                "headrace_in_flight", "Requests under way", value=self._limits.in_flight
            ),
            _labelled("headrace_build_info", "Version of Headrace", {"version": _version()}),
            self._adapters(),
            *self._record(),
            *self._replicas(),
            *self._lanes(),
        ]

    def _adapters(self) -> Metric:
        family = GaugeMetricFamily(
            "headrace_adapter_info",
            "The adapter that answers for a domain",
            labels=("backend", "domain", "adapter"),
        )
        for backend in self._catalog.backends:
            for domain in self._domains:
                champion = self._catalog.champion(backend, domain)
                if champion is not None:
                    family.add_metric((backend, domain, champion.id), 1)
        return family

    def _record(self) -> Iterator[Metric]:
        if self._recorder is None:
            return
        health = self._recorder.health
        yield GaugeMetricFamily(
            "headrace_record_waiting", "Exchanges not written yet", value=health.waiting
        )
        yield GaugeMetricFamily(
            "headrace_record_failing",
            "1 while the last write of the record failed",
            value=health.problem is not None,
        )
        for name, about in _RECORD.items():
            value: int = getattr(health, name)
            yield CounterMetricFamily(f"headrace_record_{name}", about, value=value)

    def _replicas(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "headrace_replica_state",
            "1 for the state that an engine's server is in; open and half_open are its breaker's",
            labels=("backend", "replica", "state"),
        )
        uses = GaugeMetricFamily(
            "headrace_replica_in_flight",
            "Requests that an engine's server works on",
            labels=("backend", "replica"),
        )
        for backend, pool in self._pools.items():
            for status in pool.status():
                uses.add_metric((backend, status.name), status.in_flight)
                for state in get_args(State):
                    states.add_metric((backend, status.name, state), state == status.state)
        yield states
        yield uses

    def _lanes(self) -> Iterator[Metric]:
        if self._shadows is None:
            return
        names = ("domain", "backend")
        waiting = GaugeMetricFamily(
            "headrace_shadow_waiting", "Requests that wait for their shadow", labels=names
        )
        spent = GaugeMetricFamily(
            "headrace_shadow_spent_usd", "Spent of today's budget for shadows", labels=names
        )
        shadows = CounterMetricFamily(
            "headrace_shadows", "Shadows, by what became of them", labels=(*names, "outcome")
        )
        dropped = CounterMetricFamily(
            "headrace_shadows_dropped",
            "Sampled requests without a shadow, by why",
            labels=(*names, "reason"),
        )
        # No domain has both to one backend: a candidate needs the first of the plan.
        for domain, lane in (*self._shadows.status().items(), *self._shadows.trials().items()):
            waiting.add_metric((domain, lane.to), lane.waiting)
            spent.add_metric((domain, lane.to), lane.spent_usd)
            for outcome, count in lane.outcomes.items():
                shadows.add_metric((domain, lane.to, outcome), count)
            for reason, count in lane.dropped.items():
                dropped.add_metric((domain, lane.to, reason), count)
        yield from (waiting, spent, shadows, dropped)


_RECORD = {
    "written": "Exchanges written",
    "dropped": "Exchanges for which the queue had no room",
    "lost": "Exchanges that could not be kept",
    "errors": "Writes that failed, and were tried again",
}
"""Counts of the recorder's health → what they are."""


def _labelled(name: str, about: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), 1)
    return family


@cache
def _version() -> str:
    # Here, as finding it takes longer than all else that is told, and the first reader can wait.
    from importlib.metadata import version

    return version("headrace")
