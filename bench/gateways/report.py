"""The figures as a Markdown page, a CSV file and a plot."""

from __future__ import annotations

import csv
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bench.gateways.gateways import Gateway
from bench.gateways.measure import Figures

_COLUMNS = {
    "c1_rps": ("requests/s, 1 conn.", ",.0f"),
    "c16_rps": ("16", ",.0f"),
    "c64_rps": ("64", ",.0f"),
    "c256_rps": ("256", ",.0f"),
    "c64_cpu_us": ("CPU µs a request", ",.0f"),
    "large_rps": ("25 KB, 40 tools: requests/s", ",.0f"),
    "whole_added_p50_ms": ("added ms at 100/s, p50", ".2f"),
    "whole_added_p99_ms": ("p99", ".2f"),
    "text_events_per_s": ("streamed events/s", ",.0f"),
    "call_events_per_s": ("of tool calls", ",.0f"),
    "text_us_per_event": ("CPU µs an event", ".1f"),
    "stream_added_p50_ms": ("added ms to first chunk, p50", ".2f"),
    "stream_added_p99_ms": ("p99", ".2f"),
    "rss_idle_mib": ("MiB idle", ".0f"),
    "rss_loaded_mib": ("loaded", ".0f"),
    "rss_half_mib": ("after 25,000", ".0f"),
    "rss_end_mib": ("after 50,000", ".0f"),
    "start_s": ("start s", ".2f"),
}
_MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")


def table(figures: Sequence[Figures], gateways: Sequence[Gateway]) -> str:
    """Medians over the rounds, a line for each gateway."""
    medians = {one.name: _medians(figures, one.name) for one in gateways}
    shown = [key for key in _COLUMNS if any(key in one for one in medians.values())]
    head = ["gateway", *(_COLUMNS[key][0] for key in shown), "errors"]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    for gateway in gateways:
        if not medians[gateway.name]:
            continue
        told = [_told(key, medians[gateway.name]) for key in shown]
        errors = sum(one.errors for one in figures if one.gateway == gateway.name)
        lines.append([gateway.about, *told, str(errors)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _medians(figures: Sequence[Figures], name: str) -> dict[str, float]:
    mine = [one.values for one in figures if one.gateway == name]
    keys = {key for values in mine for key in values}
    return {key: statistics.median(v[key] for v in mine if key in v) for key in keys}


def _told(key: str, medians: dict[str, float]) -> str:
    value = medians.get(key)
    # Not a number: too few answers came to speak of a percentile.
    return "" if value is None or value != value else format(value, _COLUMNS[key][1])


def write(
    figures: Sequence[Figures], gateways: Sequence[Gateway], rounds: int, directory: Path
) -> None:
    """`performance.md`, of which the measured part is replaced, its CSV and its plot."""
    _write_csv(figures, directory / "performance.csv")
    _plot(figures, gateways, directory / "performance.png")
    page = directory / "performance.md"
    told = f"{_where(gateways, rounds)}\n\n{table(figures, gateways)}\n"
    page.write_text(replaced(page.read_text(), _MARKS, told))


def replaced(page: str, marks: tuple[str, str], told: str) -> str:
    """The page with this between two lines that mark its beginning and end."""
    begin, end = marks
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n{told}{end}{after}"


def _where(gateways: Sequence[Gateway], rounds: int) -> str:
    versions = {one.about.partition(":")[0]: one.version for one in gateways if one.version}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{date.today()}, {processor()}, one core for the gateway and one for upstream and load;"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()}. Medians of"
        f" {rounds} interleaved rounds. {named}."
    )


def processor() -> str:
    """What the machine's processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write_csv(figures: Sequence[Figures], path: Path) -> None:
    keys = sorted({key for one in figures for key in one.values})
    with path.open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["gateway", *keys, "errors"])
        for one in figures:
            values = [f"{one.values[key]:.4g}" if key in one.values else "" for key in keys]
            rows.writerow([one.gateway, *values, one.errors])


def _plot(figures: Sequence[Figures], gateways: Sequence[Gateway], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [one for one in gateways if _medians(figures, one.name)]
    panels = {
        "c64_rps": ("requests/s, 64 connections (log)", "log", ",.0f"),
        "text_events_per_s": ("streamed events/s (log)", "log", ",.0f"),
        "whole_added_p50_ms": ("ms added at 100 requests/s, p50", "linear", ".2f"),
    }
    plot, axes = pyplot.subplots(1, len(panels), figsize=(12, 3), sharey=True)
    for axis, (key, (title, scale, form)) in zip(axes, panels.items(), strict=True):
        values = [_medians(figures, one.name).get(key) for one in shown]
        colours = ["#3b6fb6" if one.name.startswith("headrace") else "#b0b0b0" for one in shown]
        bars = axis.barh([one.about for one in shown], [v or 0 for v in values], color=colours)
        labels = ["not measured" if value is None else f"{value:{form}}" for value in values]
        axis.set_xscale(scale)
        axis.bar_label(bars, labels=labels, padding=2, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    plot.tight_layout()
    plot.savefig(path, dpi=120)
