"""The figures as a section of a page, a CSV file and a plot."""

from __future__ import annotations

import csv
import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.gateways.report import processor, replaced
from bench.growth.axes import Axis, Point
from bench.growth.verdict import medians, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 8
"""Columns that a page is wide enough for."""


def page(points: Sequence[Point], axes: Sequence[Axis]) -> str:
    """A table and a verdict for each axis."""
    shown = [axis for axis in axes if medians(points, axis)]
    return "\n\n".join(
        f"**{axis.about}.**\n\n{table(points, axis)}\n\n{verdict(points, axis)}" for axis in shown
    )


def table(points: Sequence[Point], axis: Axis) -> str:
    """Medians over the rounds, a line for each place; where there are many figures, for each of
    them."""
    head = [axis.name, *(column.title for column in axis.columns.values())]
    lines = [head]
    for at, values in medians(points, axis).items():
        told = [_told(values.get(key), column.form) for key, column in axis.columns.items()]
        lines.append([f"{at:,}", *told])
    if len(head) > _MOST:
        lines = [list(line) for line in zip(*lines, strict=True)]
    lines.insert(1, ["---:"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _told(value: float | None, form: str) -> str:
    return "" if value is None or value != value else format(value, form)


def write(points: Sequence[Point], axes: Sequence[Axis], name: str, directory: Path) -> None:
    """What some axes measured: the block of this name in `performance.md`, a CSV file, a plot."""
    names = [axis.name for axis in axes]
    mine = [point for point in points if point.axis in names]
    _write_csv(mine, directory / f"{name}.csv")
    _plot(mine, axes, directory / f"{name}.png")
    path = directory / "performance.md"
    told = f"{_where(mine, f'make bench-{name}')}\n\n{page(mine, axes)}\n"
    marks = (f"<!-- {name}: begin -->", f"<!-- {name}: end -->")
    path.write_text(replaced(path.read_text(), marks, told))


def _where(points: Sequence[Point], command: str) -> str:
    rounds = max(Counter((point.axis, point.at) for point in points).values())
    packages = ", ".join(f"{name} {version(name)}" for name in ("headrace", "duckdb", "pyarrow"))
    return (
        f"{date.today()}, `{command}`, {processor()}, one core for what is measured and one for"
        f" what asks it; {platform.system()} {platform.release()}, Python"
        f" {platform.python_version()}, {packages}. Rounds: {rounds}, of which medians are told."
        f" The machine's load over the last 15 minutes: {os.getloadavg()[2]:.1f}."
    )


def _write_csv(points: Sequence[Point], path: Path) -> None:
    with path.open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["axis", "at", "figure", "value", "errors"])
        for point in points:
            for key, value in point.values.items():
                rows.writerow([point.axis, point.at, key, f"{value:.4g}", point.errors])


def _plot(points: Sequence[Point], axes: Sequence[Axis], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [axis for axis in axes if medians(points, axis)]
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    size = (6 if across == 1 else 4 * across, (6 if across == 1 else 3) * down)
    plot, panels = pyplot.subplots(down, across, figsize=size, squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.set_axis_off()
    for panel, axis in zip(panels.flat, shown, strict=False):
        _draw(panel, points, axis)
    plot.tight_layout()
    plot.savefig(path, dpi=120)


def _draw(panel: Axes, points: Sequence[Point], axis: Axis) -> None:
    """The costs in seconds of processor time, and what linear growth from the first would be."""
    told = medians(points, axis)
    places = list(told)
    costs = [key for key, one in axis.columns.items() if one.is_cost and not key.endswith("_mib")]
    for number, key in enumerate(costs):
        values = [told[at].get(key, float("nan")) for at in places]
        colour = _COLOURS[number % len(_COLOURS)]
        panel.loglog(
            places, values, "o-", color=colour, label=axis.columns[key].title.replace("`", "")
        )
        linear = [values[0] * at / places[0] for at in places]
        panel.loglog(places, linear, ":", color="#b0b0b0", linewidth=1)
    panel.set_ylim(*_limits([told[at][key] for at in places for key in costs if key in told[at]]))
    panel.set_title(axis.name, fontsize=10)
    panel.legend(fontsize=7, frameon=False)
    panel.spines[["top", "right"]].set_visible(False)


_COLOURS = (
    *("#3b6fb6", "#7fa3d1", "#1f3d66", "#a9bfdc", "#5b7d55"),
    *("#b58b3b", "#8a4f7d", "#c06c5a", "#707070"),
)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 2, max(values) * 4
