"""What requests cost at one place of an axis, in front of an engine that answers at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.gateways import load
from bench.gateways.gateways import ROOT
from bench.gateways.measure import streams
from bench.gateways.processes import (
    GATEWAY_CORE,
    OTHER_CORE,
    Used,
    free_port,
    running,
    used,
    wait_until_answers,
)
from bench.growth import axes, traffic
from bench.growth.axes import Axis, Point

_CONNECTIONS = 16
_GAP_MS = 200
_EVENTS = 60
"""Of a stream, the one that closes it included."""
_SETTLED_S = 1.5
"""After the start: adapters are proven."""
_IDLE_S = 1.5
_LOOK_S, _PATIENCE_S = 0.3, 60
"""After a load: between two looks at whether all of it is recorded, and at most."""
_RESTING = 0.05
"""Cores that it takes at most when there is nothing left to record."""


class Case(NamedTuple):
    """What stands behind a place of an axis."""

    bodies: list[bytes]
    domains: int = 1
    adapters: int = 0


class Place(NamedTuple):
    """Where Headrace listens, and who it is."""

    port: int
    process: int
    directory: Path


def case(axis: Axis, at: int) -> Case:
    """What is asked, and of what."""
    match axis:
        case axes.DOMAINS:
            return Case(traffic.by_domain(at), domains=at)
        case axes.ADAPTERS:
            return Case(traffic.by_domain(at), domains=at, adapters=at)
        case axes.TOOLS:
            return Case([traffic.of_tools(at)])
        case axes.BODIES:
            return Case([traffic.of_size(at)])
        case _:
            return Case([traffic.request(traffic.names(0, traffic.TOOLS), stream=True)])


def measure(axis: Axis, at: int, seconds: float, directory: Path) -> Point:
    """One place of an axis, under load for so long; streams last as long as they do."""
    point, asked = Point(axis.name, at), case(axis, at)
    if axis is axes.STREAMS:
        with (
            streams("text", _GAP_MS, _GAP_MS, directory) as there,
            serving(asked, there, directory) as place,
        ):
            _streamed(point, place, asked.bodies[0])
        return point
    with engine(asked.adapters, directory) as there, serving(asked, there, directory) as place:
        if "start_s" in axis.columns:
            point.values["start_s"] = used(place.process).seconds
            point.values["idle_us"] = _idle(place)
        _loaded(point, place, asked.bodies, seconds)
    return point


def _idle(place: Place) -> float:
    """Microseconds on the processor a second, while nobody asks."""
    time.sleep(_SETTLED_S)
    before = used(place.process)
    time.sleep(_IDLE_S)
    return 1e6 * used(place.process).since(before) / _IDLE_S


def _loaded(point: Point, place: Place, bodies: list[bytes], seconds: float) -> None:
    """As many requests as it answers, after each was asked at least twice."""
    _ask(place, bodies, 0.5 + len(bodies) / 400)
    before = _rested(place)
    through = _ask(place, bodies, seconds)
    after = _rested(place)
    good = max(1, through.requests - through.errors)
    point.errors += through.errors
    point.values["cpu_us"] = 1e6 * after.since(before) / good
    point.values["rps"] = good / through.seconds
    point.values["rss_mib"] = after.rss_mib


def _rested(place: Place) -> Used:
    """What it has used, once all is recorded."""
    began, last = time.monotonic(), used(place.process)
    while time.monotonic() - began < _PATIENCE_S:
        time.sleep(_LOOK_S)
        now = used(place.process)
        if now.since(last) < _RESTING * _LOOK_S:
            break
        last = now
    return now


def _ask(place: Place, bodies: list[bytes], seconds: float) -> load.Through:
    return load.wrk(
        place.port,
        bodies,
        {},
        connections=_CONNECTIONS,
        seconds=seconds,
        directory=place.directory,
    )


def _streamed(point: Point, place: Place, body: bytes) -> None:
    """As many streams as the axis says, all begun within a second."""
    asked = load.request(place.port, body, {})
    uvloop.run(load.at_rate(place.port, asked, 20, 10))
    before = _rested(place)
    waits = uvloop.run(load.at_rate(place.port, asked, point.at, point.at))
    after = _rested(place)
    spent = after.since(before)
    length_s = _EVENTS * _GAP_MS / 1000
    late = [total - 1000 * length_s for total in waits.total_ms]
    point.errors += waits.errors
    point.values["cores"] = spent / length_s
    point.values["event_us"] = 1e6 * spent / (point.at * _EVENTS)
    point.values["late_p50_ms"] = load.percentile(late, 50)
    point.values["late_p99_ms"] = load.percentile(late, 99)
    point.values["rss_mib"] = after.rss_mib


# ---------------------------------------------------------------- what runs meanwhile


@contextmanager
def engine(adapters: int, directory: Path) -> Iterator[int]:
    """The port of an engine with so many adapters."""
    port = free_port()
    command = [sys.executable, "-m", "bench.growth.upstream", str(port), str(adapters)]
    with running(command, OTHER_CORE, directory, {"PYTHONPATH": str(ROOT)}) as process:
        wait_until_answers(port, process, load.request(port, b"{}", {}), directory)
        yield port


@contextmanager
def serving(asked: Case, there: int, directory: Path) -> Iterator[Place]:
    """Headrace with all that a case needs, in front of an engine."""
    port = free_port()
    config = directory / "routes.yaml"
    config.write_text(traffic.settings(asked.domains, there))
    traffic.write_adapters(directory / "adapters", asked.adapters)
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    environment = {"PYTHONPATH": str(ROOT)}
    with running([*command, "--port", str(port)], GATEWAY_CORE, directory, environment) as process:
        wait_until_answers(port, process, load.request(port, asked.bodies[0], {}), directory)
        yield Place(port, process, directory)
