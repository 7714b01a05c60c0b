"""Runs that are killed: a process that has imported everything forks one for each run, which kills
itself (SIGKILL) at a chosen moment.

    python -m tests.trainer.flywheel.killing SETTINGS UNHARMED MOMENT…

A run is made with the settings UNHARMED, untouched. Then one with SETTINGS is killed at moments
such as `train:middle`, one after the other, and taken up after each. Prints, as JSON, the moments
at which a process was killed and both manifests.

The moments are the files that are opened for writing and renamed, as Python's own audit tells of
them: nothing of the trainer is replaced.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import msgspec

import trainer.engines.peft  # noqa: F401  # before the first fork
from trainer.flywheel import run as flywheel
from trainer.flywheel.events import Lines
from trainer.flywheel.settings import domains
from trainer.flywheel.state import MANIFEST

_WRITING = os.O_WRONLY | os.O_RDWR
MIDDLE, DONE, WRITTEN = "middle", "done", "written"
"""In the middle of a step; when its work is done and the manifest does not say so; when it does."""


class Moments(Protocol):
    """Told of a run's files as they are about to change."""

    def opens(self, path: str) -> None:
        """A file is opened for writing."""

    def says(self, states: dict[str, str]) -> None:
        """The manifest is replaced by one that says this of the steps."""


def main(settings: Path, unharmed: Path, moments: list[str]) -> None:
    opened = unharmed.parent / "opened.txt"
    assert _child(unharmed, _Counter(opened)) == 0
    writes = Counter(opened.read_text().splitlines())
    killed = []
    for one in moments:
        step, _, moment = one.partition(":")
        killer = _Killer(step, moment, max(1, writes[step] // 2))
        if _child(settings, killer) == signal.SIGKILL:
            killed.append(one)
    assert _child(settings, _Counter(opened)) == 0
    ended = [_manifest(path) for path in (unharmed, settings)]
    print(msgspec.json.encode({"killed": killed, "manifests": ended}).decode())


def _child(settings: Path, moments: Moments) -> int:
    """Do what there is to do, in a process of its own; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        _work(settings, moments)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _work(settings: Path, moments: Moments) -> None:
    """Never returns."""
    here = str(settings.parent)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        match event, arguments:
            case "open", (str(path), _, int(flags)) if flags & _WRITING:
                if path.startswith(here):
                    moments.opens(path)
            case "os.rename", (source, target, *_) if Path(target).name == MANIFEST:
                states = _states(Path(source))
                if states:
                    moments.says(states)

    code = 1
    with open(settings.parent / "told.txt", "a") as file:
        try:
            with redirect_stdout(file), redirect_stderr(file):
                (domain,) = domains(settings)
                sys.addaudithook(hear)
                flywheel.run(domain, Lines(file), anyway=True)
            code = 0
        finally:
            file.flush()
            os._exit(code)


def _states(manifest: Path) -> dict[str, str]:
    """Step → state; nothing for a manifest that is a bundle's or a dataset's."""
    told = msgspec.json.decode(manifest.read_bytes())
    return {step["name"]: step.get("state", "waiting") for step in told.get("steps", ())}


# ---------------------------------------------------------------- moments


class _Killer:
    """Kills this process at a moment of a step; in its middle when so many files were opened."""

    def __init__(self, step: str, moment: str, middle: int) -> None:
        self._step, self._moment, self._middle = step, moment, middle
        self._opened = 0
        self._is_running = self._is_over = False

    def opens(self, path: str) -> None:
        self._opened += self._is_running
        if self._moment == MIDDLE and self._is_running and self._opened == self._middle:
            _die()

    def says(self, states: dict[str, str]) -> None:
        if self._is_over and self._moment == WRITTEN:
            _die()
        state = states.get(self._step, "")
        self._is_over = self._is_running and state in ("done", "skipped")
        if self._is_over and self._moment == DONE:
            _die()
        self._is_running = state == "running"


class _Counter:
    """Writes down in which step each file is opened, for the parent."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._step = ""

    def opens(self, path: str) -> None:
        print(self._step, file=self._file)

    def says(self, states: dict[str, str]) -> None:
        self._step = next((name for name, state in states.items() if state == "running"), "")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _manifest(settings: Path) -> dict[str, Any]:
    (domain,) = domains(settings)
    found = flywheel.last_run(domain)
    assert found is not None
    told: dict[str, Any] = msgspec.json.decode((found.directory / MANIFEST).read_bytes())
    return told


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
