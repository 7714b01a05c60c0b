"""Figures with their intervals, drawn with Matplotlib as SVG whose text is text.

Each chart is drawn twice, for wide and for narrow screens, and the page's style shows one of them.
Colours are the page's, so that a chart is light or dark as the page is.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proxy.protocol.page.words import Unit, count, told

_COLOURS = {"#010101": "var(--text)", "#020202": "var(--accent)", "#030303": "var(--faint)"}
"""What stands for the page's colours while Matplotlib draws; it knows no variables."""
_TEXT, _ACCENT, _FAINT = _COLOURS
_WIDE, _NARROW = 8.6, 3.7
"""Inches of 96 pixels: what fits into the page at 1280 and at 400 pixels."""
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": _TEXT,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}
_LABEL = 44
"""Letters of a label; what is longer is cut."""


class Mark(NamedTuple):
    """One figure: a point, its interval, and what it is."""

    label: str
    value: float
    low: float
    high: float


def intervals(
    marks: Sequence[Mark], *, unit: Unit, title: str, line: float | None = None
) -> Markup:
    """Points with their intervals, one below the other; `line` is what they are held against."""

    def draw(axes: Axes, is_narrow: bool) -> None:
        places = range(len(marks), 0, -1)
        for mark, y in zip(marks, places, strict=True):
            axes.plot([mark.low, mark.high], [y, y], color=_ACCENT, linewidth=2)
            axes.plot([mark.value], [y], marker="o", color=_ACCENT, markersize=6)
        if line is not None:
            axes.axvline(line, color=_TEXT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(0.3, len(marks) + (1.0 if is_narrow else 0.7))
        _name(axes, [_cut(mark.label) for mark in marks], list(places), is_narrow)
        axes.xaxis.set_major_formatter(lambda value, _: told(value, unit))

    return _drawn(draw, rows=len(marks), title=title)


def course(
    counts: Sequence[int],
    values: Sequence[Mark],
    *,
    unit: Unit,
    title: str,
    line: float | None,
    along: str = "pairs",
) -> Markup:
    """A figure and its interval over a count: (n,) counts, one mark for each."""

    def draw(axes: Axes, is_narrow: bool) -> None:
        lows, highs = [mark.low for mark in values], [mark.high for mark in values]
        axes.fill_between(counts, lows, highs, color=_ACCENT, alpha=0.2, linewidth=0)
        axes.plot(counts, [mark.value for mark in values], color=_ACCENT, linewidth=2)
        if line is not None:
            axes.axhline(line, color=_TEXT, linewidth=1, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_formatter(lambda value, _: told(value, unit))
        axes.xaxis.set_major_formatter(lambda number, _: count(number))
        axes.set_xlabel(along)

    return _drawn(draw, rows=6, title=title)


def _name(axes: Axes, labels: list[str], places: list[int], is_narrow: bool) -> None:
    """Labels beside the marks, or above them where there is no room beside."""
    if not is_narrow:
        axes.set_yticks(places, labels)
        return
    axes.set_yticks([])
    for label, y in zip(labels, places, strict=True):
        axes.text(0, y + 0.3, label, transform=axes.get_yaxis_transform(), fontsize=9.5)


def _drawn(draw: Callable[[Axes, bool], None], *, rows: int, title: str) -> Markup:
    wide = _svg(draw, is_narrow=False, height=0.7 + 0.34 * rows, title=title)
    narrow = _svg(draw, is_narrow=True, height=0.7 + 0.5 * rows, title=title)
    # Matplotlib has escaped what the labels say, and we the title.
    both = f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
    return Markup(both)  # noqa: S704


def _svg(draw: Callable[[Axes, bool], None], *, is_narrow: bool, height: float, title: str) -> str:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{title} {is_narrow}"}):
        figure = Figure(figsize=(_NARROW if is_narrow else _WIDE, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(axis="x", color=_FAINT, linewidth=0.5, alpha=0.5)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=4 if is_narrow else 8)
        draw(axes, is_narrow)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with warnings.catch_warnings():
            # Letters that Matplotlib has no font for: text stays text, the browser has one.
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
            figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """The drawing without its XML prologue, named for who cannot see it, in the page's colours."""
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    drawing = svg[svg.index("<svg ") :]
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _cut(label: str) -> str:
    """A label of one line; XML has no place for control characters."""
    label = "".join(letter if letter.isprintable() else "·" for letter in label)
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
