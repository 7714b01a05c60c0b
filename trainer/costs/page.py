"""A reckoning as a page: the sentence first, then costs, rules, prices and published figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from proxy.protocol.page.charts import Mark, course
from proxy.protocol.page.frame import page
from proxy.protocol.prices import PriceTable
from trainer.costs.case import Case
from trainer.costs.claims import Claim
from trainer.costs.reckoning import Reckoning, reckon
from trainer.costs.table import SHAPES, a_million
from trainer.costs.text import mark

_POINTS = 24


def html(of: Reckoning, claims: Sequence[Claim], prices: PriceTable, at: float) -> str:
    """One file, without scripts; `at` is the day of the prices, in seconds since the epoch."""
    day = datetime.fromtimestamp(at, UTC).date().isoformat()
    return page(
        "trainer.costs",
        "costs.html.jinja",
        title="What answering at home costs",
        subtitle=f"Prices of {day}; a calculation and no bill. US dollars.",
        of=of,
        good=of.saved > 0 and not any(rule.speaks_against for rule in of.rules),
        drawing=_course(of, prices, at),
        rules=[(mark(rule), rule) for rule in of.rules],
        shapes=list(SHAPES),
        prices=list(a_million(prices)),
        claims=claims,
    )


def _course(of: Reckoning, prices: PriceTable, at: float) -> str:
    """What is saved a month, over the calls a month, to twice the break-even or the volume."""
    most = max(of.case.calls, 2 * (of.break_even or 0.0), 1.0)
    counts = [round(most * step / _POINTS) for step in range(_POINTS + 1)]
    saved = [reckon(_with(of.case, calls), prices, at).saved for calls in counts]
    marks = [Mark("", usd, usd, usd) for usd in saved]
    title = "Saved a month, over the calls a month"
    return course(counts, marks, unit="dollars", title=title, line=0.0, along="calls a month")


def _with(case: Case, calls: float) -> Case:
    return msgspec.structs.replace(case, calls=calls)
