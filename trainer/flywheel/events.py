"""What a run tells as it goes: lines for people, or one JSON object a line for machines.

Both are facts in the past tense. The run's own log keeps the same objects.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeAlias

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

Value: TypeAlias = str | float | bool | None


class Events(Protocol):
    """Where it is told."""

    def tell(self, event: str, **facts: Value) -> None:
        """Something has happened."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """A step is so far."""


class Lines:
    """One JSON object a line: `event`, `at` (seconds since the epoch), and the facts."""

    def __init__(self, file: TextIO, every: float = 1.0) -> None:
        """`every`: seconds between two lines about progress, at least."""
        self._file, self._every = file, every
        self._told = 0.0

    def tell(self, event: str, **facts: Value) -> None:
        line: dict[str, Any] = {"event": event, "at": round(time.time(), 3)} | facts
        self._file.write(msgspec.json.encode(line).decode() + "\n")
        self._file.flush()

    def progress(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._told >= self._every or done == total:
            self._told = now
            self.tell("progressed", what=what, done=done, total=total)


class People:
    """Lines with marks, and a bar below them while something runs. What has no line here is told
    otherwise: errors on stderr, triggers in a table."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
        self._bars = Progress(*columns, MofNCompleteColumn(), console=console, transient=True)
        self._bar = self._bars.add_task("", visible=False)

    def tell(self, event: str, **facts: Value) -> None:
        self._stop()
        sentence = _SENTENCES.get(event)
        if sentence is None:
            return
        known = {name: "" if value is None else value for name, value in facts.items()}
        self._console.print(sentence.format_map(_Facts(known)), soft_wrap=True, highlight=False)

    def progress(self, what: str, done: int, total: int | None) -> None:
        if not self._console.is_terminal:
            return
        if not self._bars.live.is_started:
            self._bars.start()
        self._bars.update(self._bar, description=what, completed=done, total=total, visible=True)
        if done == total:
            self._stop()

    def _stop(self) -> None:
        # Stopping what was not started writes an empty line.
        if self._bars.live.is_started:
            self._bars.stop()


class _Facts(dict[str, Value]):
    def __missing__(self, key: str) -> str:
        return ""


_SENTENCES = {
    "run_begun": "{domain}: run {run}, which makes {adapter} ({cause}; {new_rows} new rows)",
    "run_resumed": "{domain}: run {run} goes on at the step {step}; it makes {adapter}",
    "run_finished": "{domain}: {outcome}. {reason}",
    "nothing_to_do": "{domain}: nothing to do. {reason}",
    "step_started": "  … {step}",
    "step_done": "  ✓ {step}  {told}",
    "step_skipped": "  – {step}  {reason}",
    "step_waits": "  ◔ {step}  {reason}",
    "step_failed": "  ✗ {step}  {reason}",
    "would_begin": "{domain}: would begin a run that makes {adapter}, with {new_rows} new rows",
    "would_resume": "{domain}: would go on with run {run} at the step {step}",
}


class Both:
    """The same to several."""

    def __init__(self, *events: Events) -> None:
        self._events = events

    def tell(self, event: str, **facts: Value) -> None:
        for one in self._events:
            one.tell(event, **facts)

    def progress(self, what: str, done: int, total: int | None) -> None:
        for one in self._events:
            one.progress(what, done, total)


class Log:
    """Into the run's log, without progress."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, event: str, **facts: Value) -> None:
        with self._path.open("a") as file:
            Lines(file).tell(event, **facts)

    def progress(self, what: str, done: int, total: int | None) -> None:
        pass


@contextmanager
def told(as_json: bool, console: Console) -> Iterator[Events]:
    """For people, or as JSON: then what libraries print goes to stderr, and stdout is lines."""
    if not as_json:
        yield People(console)
        return
    lines = Lines(sys.stdout)
    with redirect_stdout(sys.stderr):
        yield lines
