"""How cost grows: with domains, tools, sizes, streams, adapters, and with the record.

    python -m bench.growth [--quick] [--rounds 3] [--only AXIS …] [--largest N] [--out docs]

The record's axis has a block of the page, a file and a plot of its own: to ten million exchanges it
takes longer than all others.

Headrace has a core to itself, with routing, verification and the full record; engine and load share
another one. What is told is processor time by the scheduler's count, and what came of it.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.gateways.processes import OTHER_CORE
from bench.growth import axes, record, report, requests
from bench.growth.axes import Axis, Point

_PARTS = {"growth": axes.REQUESTS, "growth-record": (axes.RECORD,)}
"""Name of block, files and make target → what they have."""
_FILES = 16_384
"""Open files: each stream has one here, two in Headrace, one in the engine."""


def main() -> int:
    """Measure, tell, write."""
    options = _options()
    os.sched_setaffinity(0, {OTHER_CORE})
    _allow_files()
    chosen = [axis for axis in axes.ALL if axis.name in (options.only or [axis.name])]
    points = []
    for point in _points(chosen, options):
        points.append(point)
        print(point.axis, point.at, point.values, file=sys.stderr, flush=True)
    print(report.page(points, chosen))
    if options.out is not None:
        for name, part in _PARTS.items():
            if measured := [axis for axis in part if axis in chosen]:
                report.write(points, measured, name, options.out)
    return 0


def _options() -> argparse.Namespace:
    names = [axis.name for axis in axes.ALL]
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="two places of each axis, once")
    add("--rounds", type=int, default=3, help="of requests; the record is asked once (%(default)s)")
    add("--only", nargs="*", choices=names, help="axes")
    add("--largest", type=int, default=10**7, help="exchanges of the record (%(default)s)")
    add("--scratch", type=Path, help="directory for the record: 0.5 GB a million (the system's)")
    add("--out", type=Path, help="directory for performance.md, CSV files and plots")
    return parser.parse_args()


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))


def _points(chosen: list[Axis], options: argparse.Namespace) -> Iterator[Point]:
    """Rounds over all axes but the record's, so that what else the machine does meets all."""
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, 2.0)
    for _ in range(rounds):
        for axis in chosen:
            if axis is not axes.RECORD:
                for at in axis.quick if options.quick else axis.values:
                    with tempfile.TemporaryDirectory() as directory:
                        yield requests.measure(axis, at, seconds, Path(directory))
    if axes.RECORD in chosen:
        for count in axes.RECORD.quick if options.quick else _sizes(options.largest):
            yield record.measure(count, options.scratch)


def _sizes(largest: int) -> list[int]:
    more = [10**power for power in range(4, 10) if 10**power <= largest]
    return more or [largest]


if __name__ == "__main__":
    sys.exit(main())
