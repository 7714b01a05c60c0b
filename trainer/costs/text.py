"""A reckoning in a terminal: tables of rich."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from proxy.protocol.page.words import count, told
from proxy.protocol.prices import PriceTable
from trainer.costs.claims import Claim
from trainer.costs.reckoning import Reckoning, Rule
from trainer.costs.table import SHAPES, a_million


def lines(of: Reckoning, claims: Sequence[Claim], prices: PriceTable) -> Iterator[RenderableType]:
    """Sentence, costs, rules, the prices of a million calls, and what others have published."""
    yield Text(of.sentence, "bold")
    yield _costs(of)
    yield _rules(of.rules)
    yield _prices(prices)
    yield _claims(claims)


def _costs(of: Reckoning) -> Table:
    table = Table("a month", "US dollars", show_edge=False)
    table.add_row(f"the cloud, {of.case.model}", told(of.cloud, "dollars"))
    for name, usd in of.own.items():
        table.add_row(f"home: {name}", told(usd, "dollars"))
    table.add_row("home, all", told(of.home, "dollars"))
    table.add_row("saved", told(of.saved, "dollars"))
    return table


def _rules(rules: Sequence[Rule]) -> Table:
    table = Table("", "when not to fine-tune", "", show_edge=False)
    for rule in rules:
        table.add_row(mark(rule), rule.name, rule.sentence)
    return table


def mark(rule: Rule) -> str:
    """✗ where it speaks against, ✓ where not, ? where it is not known."""
    return "?" if rule.speaks_against is None else "✗" if rule.speaks_against else "✓"


def _prices(prices: PriceTable) -> Table:
    table = Table("a million calls", "since", *SHAPES, show_edge=False)
    for model, since, amounts in a_million(prices):
        table.add_row(model, since, *(told(usd, "dollars") for usd in amounts))
    return table


def _claims(claims: Sequence[Claim]) -> Table:
    table = Table("published", "said", "reckoned", "all counted", "leaves out", show_edge=False)
    for one in claims:
        figures = (one.claimed, one.reckoned, one.full)
        said = (f"{count(round(figure))} {one.unit}" for figure in figures)
        table.add_row(f"{one.source}: {one.what} ({one.how})", *said, one.leaves_out)
    return table
