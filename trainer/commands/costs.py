"""headrace-trainer costs"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from proxy.protocol.exchange import Exchange
from proxy.protocol.prices import PRICES
from trainer.commands.shared import Commands, console
from trainer.costs import case, claims, logged, page, text
from trainer.costs.case import Case
from trainer.costs.claims import Claim
from trainer.costs.reckoning import Reckoning, reckon
from trainer.recipe.sources import ExchangesSettings
from trainer.sources.base import Skips
from trainer.sources.exchanges import is_wanted, open_shelf, translated


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """The page, for machines."""

    reckoning: Reckoning
    claims: list[Claim]


def add(commands: Commands) -> None:
    """Add the command."""
    costs = commands.add_parser("costs", help="what home and the cloud cost, and where they meet")
    costs.add_argument("--case", type=Path, help="a YAML file (docs/costs.md); default: two cards")
    costs.add_argument("--record", type=Path, help="take volume and tokens from this record")
    costs.add_argument("--domain", default="*", help="of the record: a glob over domains")
    costs.add_argument("--json", type=Path, metavar="FILE", help="write the same for machines")
    costs.add_argument("--html", type=Path, metavar="FILE", help="write a page for people")
    costs.set_defaults(run=_costs)


def _costs(options: argparse.Namespace) -> None:
    given = case.read(options.case) if options.case else Case()
    if options.record:
        given = _logged(given, options.record, options.domain)
    now = time.time()
    found, published = reckon(given, PRICES, now), claims.claims()
    for line in text.lines(found, published, PRICES):
        console.print(line, soft_wrap=True, highlight=False)
    if options.json:
        twin = Twin(reckoning=found, claims=published)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(twin)) + b"\n")
    if options.html:
        options.html.write_text(page.html(found, published, PRICES, now))


def _logged(given: Case, record: Path, domain: str) -> Case:
    settings = ExchangesSettings(directory=str(record), domains=(domain,))
    found = logged.logged(_exchanges(settings))
    console.print(
        f"{found.calls} calls in {found.seconds / 3600:.1f} hours, {found.clouds_share:.0%} of them"
        f" answered by a cloud ({', '.join(found.models) or 'none'})",
        highlight=False,
    )
    return logged.applied(given, found)


def _exchanges(settings: ExchangesSettings) -> Iterator[Exchange]:
    with translated(settings.directory):
        for exchange in open_shelf(settings, Skips()).exchanges():
            if is_wanted(settings, exchange):
                yield exchange
