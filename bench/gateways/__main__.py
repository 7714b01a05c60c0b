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
from bench.gateways.processes import OTHER_CORE

FULL = Size(connections=(1, 16, 64, 256), seconds=2, timed=500, remembers=False)
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
    for number in range(options.rounds):
        for gateway in gateways:
            size = QUICK if options.quick else FULL
            if gateway.name.startswith("headrace") and number == 0 and not options.quick:
                size = Size(size.connections, size.seconds, size.timed, remembers=True)
            with tempfile.TemporaryDirectory() as directory:
                figures.append(measure(gateway, size, Path(directory)))
            _progress(number, figures[-1])
    return figures


def _progress(number: int, figures: Figures) -> None:
    through, cpu = figures.values["c64_rps"], figures.values["c64_cpu_us"]
    print(
        f"round {number + 1}: {figures.gateway}: {through:,.0f}/s, {cpu:.0f} µs,"
        f" {figures.errors} errors",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
