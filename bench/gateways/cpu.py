"""Processor time a request, on a machine that has other things to do: two checkouts, turn about.

    python -m bench.gateways.cpu [--against DIR …] [--peers NAME …]
        [--case relay|verify|record] [--stream text|call]

Batches of requests over 16 connections; told is the batch that only a tenth of all beats, as what
disturbs a batch can only make it dearer.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.gateways import bodies, load
from bench.gateways.gateways import RECORDED, RELAY, ROOT, ROUTED, Gateway, all_of_them, headrace
from bench.gateways.measure import started, streams, whole_answers
from bench.gateways.processes import OTHER_CORE, used

CASES = {"relay": RELAY, "verify": ROUTED, "record": RECORDED}
CONNECTIONS = 16


def main() -> int:
    """Measure; a line for each gateway."""
    options = _options()
    os.sched_setaffinity(0, {OTHER_CORE})
    settings = CASES[options.case]
    gateways = [
        Gateway(f"{options.case} {root.name}", "", headrace(settings, root), "")
        for root in (ROOT, *options.against)
    ]
    gateways += [one for one in all_of_them() if one.name in options.peers]
    spent: dict[str, list[float]] = {gateway.name: [] for gateway in gateways}
    for _ in range(options.rounds):
        for gateway in gateways:
            spent[gateway.name] += _batches(gateway, options)
    for name, batches in spent.items():
        best, median = statistics.quantiles(batches, n=10)[0], statistics.median(batches)
        count = f"{len(batches)} × {options.batch}"
        print(f"{name}, {options.stream or 'whole'}: {best:.0f} µs (median {median:.0f}, {count})")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gateways.cpu")
    parser.add_argument("--against", type=Path, nargs="*", default=[], help="other checkouts")
    parser.add_argument("--peers", nargs="*", default=[], help="names of other gateways")
    parser.add_argument("--case", choices=CASES, default="relay")
    parser.add_argument("--stream", choices=("text", "call"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--batch", type=int, default=160)
    return parser.parse_args()


def _batches(gateway: Gateway, options: argparse.Namespace) -> list[float]:
    """Microseconds a request, of each batch."""
    kind = options.stream
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = streams(kind, 0, 0, directory) if kind else whole_answers(directory)
        place = stack.enter_context(started(gateway, stack.enter_context(upstream), directory))
        body = bodies.SMALL_STREAM if kind else bodies.SMALL
        asked = load.request(place.port, body, place.headers)
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", place.port)))
            for _ in range(CONNECTIONS)
        ]
        _ask(clients, asked, 800)
        return [
            _batch(clients, asked, place.process, options.batch) for _ in range(options.batches)
        ]


def _batch(clients: list[socket.socket], asked: bytes, process: int, count: int) -> float:
    before = used(process)
    _ask(clients, asked, count)
    return 1e6 * used(process).since(before) / count


def _ask(clients: list[socket.socket], asked: bytes, count: int) -> None:
    for _ in range(count // len(clients)):
        for client in clients:
            client.sendall(asked)
        for client in clients:
            _receive(client)


def _receive(client: socket.socket) -> None:
    received = b""
    while True:
        received += client.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        if load.is_whole(head.lower(), body):
            assert head.startswith(b"HTTP/1.1 200"), head
            return


if __name__ == "__main__":
    sys.exit(main())
