"""The figures as Markdown, and as a section of `docs/performance.md`."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from bench.engines.asking import Round
from bench.gateways.report import processor, replaced

_MARKS = ("<!-- engines: begin -->", "<!-- engines: end -->")


def beside(rounds: Mapping[tuple[str, int], Sequence[Round]]) -> str:
    """A line for each engine and number of clients."""
    head = [
        *("engine", "clients", "n", "prompt tokens", "first token, p50"),
        *("output tokens/s", "processor ms a token"),
    ]
    return _table(head, (_compared(*place, done) for place, done in rounds.items()))


def _compared(name: str, clients: int, rounds: Sequence[Round]) -> list[str]:
    answers = [one for done in rounds for one in done.answers]
    return [
        *(name, str(clients), str(len(answers))),
        format(statistics.fmean(one.prompt for one in answers), ".0f"),
        _median(one.first for one in answers),
        *_speeds(rounds),
    ]


def over_adapters(rounds: Mapping[str, Sequence[Round]]) -> str:
    """A line for each kind of traffic."""
    head = [
        *("sixteen clients, three adapters", "n", "prompt tokens", "output tokens/s"),
        *("processor ms a token", "first token of a text, p50", "whole call, verified, p50"),
        "no valid answer",
    ]
    return _table(head, (_told(name, done) for name, done in rounds.items()))


def _told(name: str, rounds: Sequence[Round]) -> list[str]:
    answers = [one for done in rounds for one in done.answers]
    return [
        *(name, str(len(answers))),
        format(statistics.fmean(one.prompt for one in answers), ".0f"),
        *_speeds(rounds),
        _median(one.first for one in answers if not one.is_call),
        _median(one.whole for one in answers if one.is_call),
        str(sum(done.refused for done in rounds)),
    ]


def _speeds(rounds: Sequence[Round]) -> tuple[str, str]:
    """Output tokens a second, and milliseconds of processor time for each: medians of rounds."""
    speed = statistics.median(done.tokens / done.wall for done in rounds)
    cost = statistics.median(1000 * done.processor / done.tokens for done in rounds)
    return format(speed, ".0f"), format(cost, ".1f")


def _median(seconds: Iterable[float]) -> str:
    known = list(seconds)
    return f"{statistics.median(known):.2f} s ({len(known)})" if known else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(told: str, command: str, rounds: int, directory: Path) -> None:
    """The section of `performance.md` that is measured."""
    path = directory / "performance.md"
    section = f"{_where(command, rounds)}\n\n{told}\n"
    path.write_text(replaced(path.read_text(), _MARKS, section))


def _where(command: str, rounds: int) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("headrace", "openvino-genai"))
    return (
        f"{date.today()}, `{command}`, {processor()}, {os.cpu_count()} cores; {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()}, {packages}. Rounds: {rounds};"
        " speeds are medians of the rounds, times medians of all answers (their number in"
        f" brackets). The machine's load over the last 15 minutes: {os.getloadavg()[2]:.1f}."
    )
