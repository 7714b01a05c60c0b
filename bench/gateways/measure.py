"""What is measured of one gateway in one round."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.gateways import bodies, load, upstream
from bench.gateways.gateways import ROOT, Gateway
from bench.gateways.processes import (
    GATEWAY_CORE,
    OTHER_CORE,
    free_port,
    running,
    used,
    wait_until_answers,
)

DELAY_MS = 50
"""What the upstream takes for a whole answer at the constant rate."""
FIRST_MS = 20
GAP_MS = 5
"""Of the timed stream: until its first event, and between two."""
REMEMBERED = 50_000
"""Requests after which memory is looked at."""


class Size(msgspec.Struct, frozen=True):
    """How long each measurement takes."""

    connections: tuple[int, ...]
    seconds: float
    """Of each load."""
    timed: int
    """Requests at 100 a second; streams at 40 a second are half as many."""
    remembers: bool
    """Whether memory after REMEMBERED requests is measured."""


class Figures(msgspec.Struct):
    """One gateway in one round; what was not measured stays away. Keys say their unit."""

    gateway: str
    values: dict[str, float] = {}
    errors: int = 0


class _Place(NamedTuple):
    """Where a gateway under test listens, and who it is."""

    port: int
    process: int
    start_s: float
    headers: dict[str, str]
    directory: Path


def measure(gateway: Gateway, size: Size, directory: Path) -> Figures:
    """All figures of one gateway, from three starts of it in front of three upstreams."""
    figures = Figures(gateway.name)
    with whole_answers(directory) as there, started(gateway, there, directory) as place:
        figures.values["start_s"] = place.start_s
        figures.values["rss_idle_mib"] = used(place.process).rss_mib
        for connections in size.connections:
            _loaded(figures, f"c{connections}", place, bodies.SMALL, connections, size.seconds)
        figures.values["rss_loaded_mib"] = used(place.process).rss_mib
        _loaded(figures, "large", place, bodies.LARGE, 64, size.seconds)
        if size.remembers:
            _remembered(figures, place)
    for kind, events in (("text", bodies.TEXT), ("call", bodies.CALL)):
        with streams(kind, 0, 0, directory) as there, started(gateway, there, directory) as place:
            body = bodies.SMALL_STREAM
            _loaded(figures, kind, place, body, 16, size.seconds)
            _per_event(figures, kind, len(events))
    if gateway.timed:
        _timed(figures, gateway, size, directory)
    return figures


def _per_event(figures: Figures, kind: str, events: int) -> None:
    requests = figures.values.get(f"{kind}_rps")
    if requests is not None:
        figures.values[f"{kind}_events_per_s"] = requests * events
        figures.values[f"{kind}_us_per_event"] = figures.values[f"{kind}_cpu_us"] / events


def _loaded(
    figures: Figures, name: str, place: _Place, body: bytes, connections: int, seconds: float
) -> None:
    before = used(place.process)
    through = load.wrk(
        place.port,
        [body],
        place.headers,
        connections=connections,
        seconds=seconds,
        directory=place.directory,
    )
    spent = used(place.process).since(before)
    good = through.requests - through.errors
    figures.errors += through.errors
    if good <= 0:
        return
    figures.values[f"{name}_rps"] = good / through.seconds
    figures.values[f"{name}_cpu_us"] = 1e6 * spent / good


def _remembered(figures: Figures, place: _Place) -> None:
    done, scratch = 0, Figures("")
    for half in (REMEMBERED // 2, REMEMBERED):
        while done < half:
            _loaded(scratch, "more", place, bodies.SMALL, 64, 2)
            done += int(2 * scratch.values.get("more_rps", 1000.0))
        name = "rss_half_mib" if half < REMEMBERED else "rss_end_mib"
        figures.values[name] = used(place.process).rss_mib


def _timed(figures: Figures, gateway: Gateway, size: Size, directory: Path) -> None:
    cases = (
        ("whole", bodies.SMALL, DELAY_MS, 0, 100, size.timed),
        ("stream", bodies.SMALL_STREAM, FIRST_MS, GAP_MS, 40, size.timed // 2),
    )
    for name, body, wait_ms, gap_ms, rate, count in cases:
        with (
            streams("text", wait_ms, gap_ms, directory) as there,
            started(gateway, there, directory) as place,
        ):
            # Warm, as a gateway is that has been up for more than a moment.
            asyncio.run(load.at_rate(place.port, _asked(place, body), rate, 50))
            direct, through = asyncio.run(_both(place, there, body, rate, count))
        figures.errors += through.errors
        for of_100 in (50, 99):
            added = load.percentile(_times(through, name), of_100)
            added -= load.percentile(_times(direct, name), of_100)
            figures.values[f"{name}_added_p{of_100}_ms"] = added


async def _both(
    place: _Place, there: int, body: bytes, rate: float, count: int
) -> tuple[load.Waits, load.Waits]:
    """The same, past the gateway and through it."""
    direct = await load.at_rate(there, load.request(there, body, {}), rate, count)
    return direct, await load.at_rate(place.port, _asked(place, body), rate, count)


def _times(waits: load.Waits, name: str) -> list[float]:
    return waits.first_ms if name == "stream" else waits.total_ms


def _asked(place: _Place, body: bytes) -> bytes:
    return load.request(place.port, body, place.headers)


# ---------------------------------------------------------------- what runs meanwhile


@contextmanager
def started(gateway: Gateway, there: int, directory: Path) -> Iterator[_Place]:
    """The gateway in front of an upstream."""
    port = free_port()
    launch = gateway.launch(port, there, directory)
    headers = dict(launch.headers)
    asked = load.request(port, bodies.SMALL, headers)
    with running(launch.command, GATEWAY_CORE, directory, launch.environment) as process:
        start_s = wait_until_answers(port, process, asked, directory)
        yield _Place(port, process, start_s, headers, directory)


@contextmanager
def whole_answers(directory: Path) -> Iterator[int]:
    """The port of an upstream whose answers come at once and in one piece."""
    port = free_port()
    settings = upstream.nginx_of_answers(port, directory)
    command = ["nginx", "-c", str(settings), "-p", str(directory)]
    with running(command, OTHER_CORE, directory, {"PATH": "/usr/sbin:/usr/bin:/bin"}) as process:
        wait_until_answers(port, process, load.request(port, b"{}", {}), directory)
        yield port


@contextmanager
def streams(kind: str, wait_ms: float, gap_ms: float, directory: Path) -> Iterator[int]:
    """The port of an upstream that streams."""
    port = free_port()
    command = [sys.executable, "-m", "bench.gateways.upstream", str(port), kind]
    times = [str(wait_ms), str(gap_ms)]
    environment = {"PYTHONPATH": str(ROOT)}
    with running([*command, *times], OTHER_CORE, directory, environment) as process:
        wait_until_answers(port, process, load.request(port, b"{}", {}), directory)
        time.sleep(0.05)
        yield port
