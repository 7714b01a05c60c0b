"""Several processes behind one port: started together, stopped together.

A worker is this program once more, told by an environment variable which one it is. One that ends
unasked ends all: whatever started this proxy starts it anew, as it would a single process. Workers
whose starter is killed end, too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from proxy.siblings import PLACE, Place

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(count: int, bound: socket.socket, arguments: Sequence[str]) -> int:
    """Run so many workers with these arguments until all have ended; the exit code."""
    # Its end that is written to stays here: when this process is gone, however, the workers see it.
    parent, _ = os.pipe()
    with tempfile.TemporaryDirectory(prefix="headrace-") as directory:
        workers = [
            _started(Place(number, count, bound.fileno(), parent, Path(directory)), arguments)
            for number in range(count)
        ]

        def forward(number: int, frame: FrameType | None) -> None:
            # In a terminal, Ctrl-C reaches the workers too; a second SIGINT would cut them short.
            _tell(workers, signal.SIGHUP if number == signal.SIGHUP else signal.SIGTERM)

        for number in _FORWARDED:
            signal.signal(number, forward)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        _tell(workers, signal.SIGTERM)
        codes = [worker.wait() for worker in workers]
    return next((1 if code < 0 else code for code in codes if code), 0)


def _started(place: Place, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "proxy", *arguments],
        env={**os.environ, PLACE: str(place)},
        pass_fds=[place.listening, place.parent],
    )


def _tell(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)
