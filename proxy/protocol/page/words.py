"""Figures as people read them: shares in percent, differences in points, times and money."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, isnan
from typing import Literal, TypeAlias

from proxy.protocol.evidence.intervals import Interval

Unit: TypeAlias = Literal["share", "points", "seconds", "dollars"]
NONE = "–"


def told(value: float, unit: Unit) -> str:
    """One figure: `93.4 %`, `+1.2 pt`, `340 ms`, `$1.20`; a dash where there is none."""
    return _TOLD[unit](value) if isfinite(value) else NONE


def span(interval: Interval, unit: Unit) -> str:
    """An interval: `[91.0 %, 95.3 %]`; nothing where there is none."""
    if isnan(interval.low) or isnan(interval.high):
        return ""
    return f"[{told(interval.low, unit)}, {told(interval.high, unit)}]"


def count(number: float) -> str:
    """A number with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f") if isfinite(number) else NONE


def roughly(number: float) -> str:
    """A number of which only the first two digits mean something: `about 1 300`."""
    digits = max(0, len(str(int(number))) - 2)
    return f"about {count(round(number, -digits))}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} pt"


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if abs(value) < 1 else f"{value:.2f} s"


def _dollars(value: float) -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}${abs(value):,.4f}" if 0 < abs(value) < 0.1 else f"{sign}${abs(value):,.2f}"


_TOLD: dict[Unit, Callable[[float], str]] = {
    "share": _share,
    "points": _points,
    "seconds": _seconds,
    "dollars": _dollars,
}
