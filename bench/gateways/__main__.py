"""Headrace and other gateways, side by side: how much goes through, and what they add.

    python -m bench.gateways [--quick] [--rounds 3] [--only NAME …] [--out docs]

The gateway has a core to itself; upstream and load share another one. Rounds take turns, so that
what else the machine does meets all alike; medians are told. Writes a page, a table and a plot.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.gateways import report
from bench.gateways.gateways import Gateway, all_of_them
from bench.gateways.measure import Figures, Size, measure
from bench.gateways.processes import OTHER_CORE, DoesNotAnswer

FULL = Size(connections=(1, 16, 64, 256), seconds=2, timed=300, remembers=False)
QUICK = Size(connections=(64,), seconds=2, timed=200, remembers=False)
QUICK_ONES = ("headrace-relay", "headrace-verify", "headrace-record", "nginx", "vllm-router")


def main() -> int:
    """Measure, tell, write."""
    options = _options()
    os.sched_setaffinity(0, {OTHER_CORE})
    gateways = [one for one in all_of_them() if one.name in (options.only or [one.name])]
    if options.quick and not options.only:
        gateways = [one for one in gateways if one.name in QUICK_ONES]
    for absent in (one for one in gateways if one.version is None):
        print(f"{absent.about} is not installed, and left out", file=sys.stderr)
    figures = _rounds([one for one in gateways if one.version], options)
    print(report.table(figures, gateways))
    if options.out is not None:
        report.write(figures, gateways, options.rounds, options.out)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gateways", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer gateways, 64 connections")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of gateways")
    parser.add_argument("--out", type=Path, help="directory for performance.md and its figures")
    return parser.parse_args()


def _rounds(gateways: list[Gateway], options: argparse.Namespace) -> list[Figures]:
    figures: list[Figures] = []
    left_out: set[str] = set()
    for number in range(options.rounds):
        for gateway in gateways:
            if gateway.name in left_out:
                continue
            size = _size(gateway, number, options)
            with tempfile.TemporaryDirectory() as directory:
                try:
                    figures.append(measure(gateway, size, Path(directory)))
                except DoesNotAnswer as error:
                    left_out.add(gateway.name)
                    print(f"{gateway.about} is left out: {error}", file=sys.stderr)
                else:
                    _progress(number, figures[-1])
    return figures


def _size(gateway: Gateway, number: int, options: argparse.Namespace) -> Size:
    if options.quick:
        return QUICK
    # Memory after many requests is looked at once, and of ours: some peers would take minutes.
    remembers = number == 0 and gateway.name.startswith("headrace")
    return Size(FULL.connections, FULL.seconds, FULL.timed, remembers)


def _progress(number: int, figures: Figures) -> None:
    through, cpu = figures.values.get("c64_rps", 0.0), figures.values.get("c64_cpu_us", 0.0)
    print(
        f"round {number + 1}: {figures.gateway}: {through:,.0f}/s, {cpu:.0f} µs,"
        f" {figures.errors} errors",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
