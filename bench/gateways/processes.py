"""Processes on a core of their own: started, waited for, their time and memory read from /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 60
GATEWAY_CORE = 0
OTHER_CORE = 1


class DoesNotAnswer(Exception):
    """A process that was started does not answer, or not any more."""


class Used(NamedTuple):
    """What a process and its children have used so far."""

    seconds: float
    """On the processor, in user and kernel mode."""
    rss_mib: float

    def since(self, before: Used) -> float:
        """Seconds on the processor since then."""
        return self.seconds - before.seconds


@contextmanager
def running(
    command: Sequence[str], core: int, directory: Path, environment: Mapping[str, str] = {}
) -> Iterator[int]:
    """A process group on one core, for as long as the context lasts; its leader's id.

    What it prints goes into a file, as it would with a collector of logs.
    """
    pinned = ["taskset", "-c", str(core), *command]
    with (directory / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(
            pinned,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        with_group = os.getpgid(process.pid) if process.poll() is None else None
        if with_group is not None:
            os.killpg(with_group, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_answers(port: int, process: int, request: bytes, directory: Path) -> float:
    """Seconds until a 200 comes back; raises DoesNotAnswer when none does, or the process ends,
    with the last that was printed into the directory's logs."""
    began = time.perf_counter()
    while time.perf_counter() - began < PATIENCE_S:
        if _answers(port, request):
            return time.perf_counter() - began
        if not Path(f"/proc/{process}/stat").exists():
            break
        time.sleep(0.005)
    said = "".join(log.read_text()[-500:] for log in directory.glob("*.log"))
    raise DoesNotAnswer(f"nothing answers on port {port}: {said}")


def _answers(port: int, request: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def used(leader: int) -> Used:
    """Of the whole process group. Nanoseconds on the processor are the scheduler's own count."""
    nanoseconds, rss = 0, 0
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _is_of(process, leader):
            nanoseconds += sum(_on_processor(task) for task in _tasks(process))
            rss += _resident(process)
    return Used(nanoseconds / 1e9, rss / 1024)


def _is_of(process: Path, leader: int) -> bool:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[2]) == leader


def _tasks(process: Path) -> list[Path]:
    try:
        return list((process / "task").iterdir())
    except OSError:
        return []


def _on_processor(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0


def _resident(process: Path) -> int:
    """KiB."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
