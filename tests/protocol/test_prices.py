"""An exchange costs what its model cost on its day."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from proxy.protocol.openai import Usage
from proxy.protocol.prices import PRICES, Price, price_at

OLD = Price(since=date(2025, 1, 1), input=2, output=8)
NEW = Price(since=date(2026, 1, 1), input=1, output=4, cached_input=0.5)
TABLE = {"m": [NEW, OLD]}


def at(year: int) -> float:
    return datetime(year, 6, 1, tzinfo=UTC).timestamp()


def test_price_is_the_latest_that_had_begun():
    assert price_at(TABLE, "m", at(2025)) is OLD
    assert price_at(TABLE, "m", at(2026)) is NEW
    assert price_at(TABLE, "m", at(2024)) is None


@pytest.mark.parametrize("model", ["m-2024-08-06", "m-0613"])
def test_snapshot_costs_what_its_model_costs(model: str):
    assert price_at(TABLE, model, at(2026)) is NEW


def test_unknown_model_has_no_price():
    assert price_at(PRICES, "somebody-s-own", at(2026)) is None


def test_cached_tokens_cost_less():
    assert OLD.cost(Usage.of(1_000_000, 500_000)) == 6
    assert NEW.cost(Usage.of(1_000_000, 0), cached_tokens=1_000_000) == 0.5
    assert OLD.cost(Usage.of(1_000_000, 0), cached_tokens=1_000_000) == 2


def test_more_cached_tokens_than_tokens_cost_nothing_extra():
    assert NEW.cost(Usage.of(10, 0), cached_tokens=1000) == 10 * 0.5 / 1_000_000
