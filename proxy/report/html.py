"""A report as one page that opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from proxy.protocol.page.charts import Mark, course, intervals
from proxy.protocol.page.frame import page
from proxy.report import text
from proxy.report.ab import Report
from proxy.report.estimates import Estimate

_TONES = {"better": "good", "not_worse": "good", "worse": "bad", "undecided": "open"}
_WORDS = {
    "better": "Better",
    "not_worse": "Not worse",
    "worse": "Worse",
    "undecided": "Undecided",
}


def html(report: Report) -> str:
    """The page."""
    contest = report.contest
    return page(
        "proxy.report",
        "ab.html.jinja",
        title=f"{contest.candidate} against {contest.baseline}",
        subtitle=_scope(report),
        tone=_TONES[report.verdict.word],
        word=_WORDS[report.verdict.word],
        report=report,
        pairs=text.pairs_of(report),
        rows=[text.row(of) for of in text.estimates(report)],
        course=_course(report),
        shares=_drawn(text.estimates(report), "share", "Shares, with 95 % intervals"),
        times=_drawn(report.figures.times, "seconds", "Seconds to the whole answer"),
        slices=_slices(report),
        text=text,
    )


def _scope(report: Report) -> str:
    scope = report.scope
    parts = [
        f"{_day(scope.since)} to {_day(scope.until)}",
        f"domain {scope.domain}" if scope.domain else "all domains",
        f"tenant {scope.tenant}" if scope.tenant else "all tenants",
        text.pairs_of(report),
    ]
    return " · ".join(parts)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _course(report: Report) -> Markup | None:
    if len(report.course) < 2:
        return None
    by_right = report.verdict.basis == "demonstrations"
    return course(
        [look.n for look in report.course],
        [Mark("", look.value, look.interval.low, look.interval.high) for look in report.course],
        unit="points" if by_right else "share",
        title="The figure of the verdict and its interval, pair by pair",
        line=0 if by_right else 1 - report.verdict.margin,
    )


def _drawn(figures: Sequence[Estimate], unit: str, title: str) -> Markup | None:
    marks = [_mark(of.name, of) for of in figures if of.unit == unit and of.value is not None]
    unit_of = next((of.unit for of in figures if of.unit == unit), None)
    return intervals(marks, unit=unit_of, title=title) if marks and unit_of else None


def _mark(name: str, of: Estimate) -> Mark:
    value = of.value or 0.0
    low, high = (of.interval.low, of.interval.high) if of.interval else (value, value)
    return Mark(f"{name} (n={of.n})", value, low, high)


def _slices(report: Report) -> Markup | None:
    marks = [
        _mark(f"{one.by} {one.name}", one.agreement)
        for one in report.slices
        if one.agreement.value is not None
    ]
    return intervals(marks, unit="share", title="Agreement by slice") if marks else None
