"""A report in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.protocol.page.words import NONE, count, span, told
from proxy.report.ab import Report
from proxy.report.estimates import Estimate

_CELL = 60
"""Letters of a name; what is longer is cut."""
HEAD = ("figure", "value", "95 %", "n", "at every look")


def lines(report: Report) -> Iterator[str | tuple[str, ...]]:
    """Lines of text, and rows of a table as tuples."""
    yield report.verdict.sentence
    if not report.figures.pairs:
        yield from _trials(report)
        return
    yield ""
    yield HEAD
    yield from map(row, estimates(report))
    yield ""
    yield f"{pairs_of(report)}: {_counted(report.figures.kinds.items()) or NONE}"
    if report.left_out:
        yield f"left out: {_counted(report.left_out.items())}"
    yield from _accuracy(report)
    yield from _slices(report)
    yield from _trials(report)


def pairs_of(report: Report) -> str:
    """How many pairs of how many conversations."""
    figures = report.figures
    return f"{count(figures.pairs)} pairs of {count(figures.conversations)} conversations"


def _counted(of: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count(n)}" for name, n in of)


def estimates(report: Report) -> list[Estimate]:
    """The figures of a report, the most important first."""
    figures = report.figures
    accuracy = figures.accuracy
    judged = [accuracy.candidate, accuracy.baseline, accuracy.difference] if accuracy else []
    rest = (*figures.validity, *figures.calls, *figures.times, *figures.costs)
    return [*judged, figures.agreement, figures.arguments, *rest]


def row(of: Estimate) -> tuple[str, ...]:
    """Name, value, interval, n, always-valid interval."""
    return (
        of.name,
        value(of),
        bounds(of),
        worth(of),
        span(of.always, of.unit) if of.always else "",
    )


def value(of: Estimate) -> str:
    """The figure; a dash where there is nothing to count."""
    return NONE if of.value is None else told(of.value, of.unit)


def bounds(of: Estimate) -> str:
    """Its interval; for what is unwanted, its upper bound."""
    if of.bound is not None:
        return f"at most {told(of.bound, of.unit)}"
    return span(of.interval, of.unit) if of.interval else ""


def worth(of: Estimate) -> str:
    """n, and what it is worth where that is less."""
    return count(of.n) if of.worth >= 0.99 * of.n else f"{count(of.n)} (worth {count(of.worth)})"


def _accuracy(report: Report) -> Iterator[str]:
    found = report.figures.accuracy
    if found is None:
        yield "no demonstrations: nobody said what the right answers are (docs/reports.md)"
        return
    yield (
        f"against {count(found.difference.n)} demonstrations: both right {count(found.both)}, only"
        f" candidate {count(found.only_candidate)}, only baseline {count(found.only_baseline)},"
        f" neither {count(found.neither)}; exact p = {found.p:.3g}"
    )


def _slices(report: Report) -> Iterator[str | tuple[str, ...]]:
    if report.slices:
        yield ""
        yield ("slice", "agreement", "95 %", "n", "differs from the rest")
    for one in report.slices:
        kept = f"p = {one.differs_p:.3g}" + (" ←" if one.differs_p < 0.05 else "")
        agreement = one.agreement
        yield (f"{one.by} {one.name}", value(agreement), bounds(agreement), worth(agreement), kept)


def _trials(report: Report) -> Iterator[str | tuple[str, ...]]:
    for trial in report.trials:
        yield ""
        yield ("live comparison", trial.first, trial.second, "difference, 95 %", "p")
        for one in trial.shares:
            sides = (f"{value(side)} of {worth(side)}" for side in (one.first, one.second))
            yield (one.name, *sides, span(one.difference, "points"), f"{one.p:.3g}")
        yield from (row(of) for of in (*trial.times, *trial.costs))


def aligned(rows: Iterable[str | tuple[str, ...]]) -> Iterator[str]:
    """The same with the columns of each table equally wide, and nothing that moves a cursor."""
    table: list[tuple[str, ...]] = []
    for one in rows:
        if isinstance(one, tuple):
            table.append(tuple(map(_printable, one)))
            continue
        yield from _columns(table)
        table = []
        yield _printable(one)
    yield from _columns(table)


def _printable(text: str) -> str:
    """Names come from requests: what is no letter to a terminal is shown as a dot."""
    shown = text if len(text) <= _CELL or " " in text else text[:_CELL] + "…"
    return "".join(letter if letter.isprintable() else "·" for letter in shown)


def _columns(table: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for one in table:
        cells = (cell.ljust(width) for cell, width in zip(one, widths, strict=True))
        yield "  ".join(cells).rstrip()
