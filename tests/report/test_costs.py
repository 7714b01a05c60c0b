from datetime import date

import msgspec
import pytest

from proxy.protocol.hardware import CostSettings, Hardware
from proxy.protocol.prices import Price
from proxy.report.costs import Answered, Bill, Paid, Twice, bill, lines
from proxy.report.text import aligned
from tests.record.examples import NOW

PRICES = {"gpt-4o": [Price(since=date(2026, 1, 1), input=2.5, output=10)]}
MONTH = 730 * 60 * 60
OWN = CostSettings(
    hardware=[Hardware(name="RTX 3090", price=1499, count=2, watts=350)],
    duty=1,
    per_kwh=0.1872,
)
"""Some $179 a month: 83.28 for two cards and 95.66 for 511 kWh."""
CALLS = Answered(
    at=NOW, model="gpt-4o", requests=100_000, prompt_tokens=150_000_000, completion_tokens=6_000_000
)
"""$435 in the cloud: 1 500 tokens in and 60 out, each."""


def billed(*answered: Answered, twice: tuple[Twice, ...] = (), own=OWN, **fields) -> Bill:
    paid = fields.pop("paid", Paid(requests=0, answers_usd=0, shadows_usd=0))
    return bill(answered, twice, paid, PRICES, own, since=NOW, until=NOW + MONTH, **fields)


def twice(cost_usd: float, n: int) -> tuple[Twice, ...]:
    return tuple(
        Twice(
            at=NOW,
            conversation=f"{number}",
            prompt_tokens=1000,
            completion_tokens=0,
            model="gpt-4o-2024-08-06",
            cost_usd=cost_usd * (0.9 if number % 2 else 1.1),
        )
        for number in range(n)
    )


def test_monthly_costs_are_purchase_over_life_and_electricity():
    assert OWN.monthly_usd() == pytest.approx(
        {"hardware": 83.28, "electricity": 95.66, "operation": 0, "other": 0}, abs=0.01
    )


def test_other_currencies_and_people_count():
    own = msgspec.structs.replace(
        OWN, usd=1.1, ops_hours=4, per_ops_hour=100, other_per_month=50, duty=0
    )

    assert own.monthly_usd() == pytest.approx(
        {"hardware": 91.61, "electricity": 0, "operation": 440, "other": 55}, abs=0.01
    )


def test_what_was_saved_is_the_clouds_price_less_ones_own_costs():
    found = billed(CALLS)

    assert found.cloud_instead == pytest.approx(435)
    assert found.saved == pytest.approx(435 - 178.94, abs=0.01)
    assert found.cheaper == "home"
    assert found.sentence.startswith("Saved $256.06: 100\u202f000 requests")


def test_it_says_when_the_cloud_would_be_cheaper_and_from_when_home_is():
    few = msgspec.structs.replace(
        CALLS, requests=10_000, prompt_tokens=15_000_000, completion_tokens=600_000
    )

    found = billed(few)

    assert found.cheaper == "cloud"
    assert found.break_even == pytest.approx(178.94 / 0.00435, rel=0.001)
    assert found.sentence.startswith("The cloud would be cheaper, by $135.44")
    assert found.sentence.endswith("Home is cheaper from about 41\u202f000 such requests a month.")


def test_pairs_tell_how_the_clouds_real_bill_differs():
    found = billed(CALLS, twice=twice(0.00125, 200))

    assert found.factor.value == pytest.approx(0.5)
    assert found.factor.interval.low < 0.5 < found.factor.interval.high
    assert found.cloud_instead == pytest.approx(217.5)
    assert found.cloud_instead_interval.low < 217.5 < found.cloud_instead_interval.high
    assert "in 200 pairs" in "\n".join(aligned(lines(found)))


def test_close_calls_are_told_as_such():
    found = billed(CALLS, twice=twice(178.94 / 435 * 0.0025, 10))

    assert found.cheaper == "undecided"
    assert found.sentence.startswith("About even: between -$")


def test_shadows_in_the_cloud_are_a_cost_of_home():
    found = billed(CALLS, paid=Paid(requests=5, answers_usd=3, shadows_usd=100))

    assert found.saved == pytest.approx(435 - 178.94 - 100, abs=0.01)
    assert "with $100.00 for shadows" in found.sentence


def test_models_without_a_price_save_nothing_and_are_told():
    found = billed(CALLS, msgspec.structs.replace(CALLS, model="mystery", requests=7))

    assert (found.at_home, found.unpriced) == (100_000, {"mystery": 7})
    assert "7 requests for 'mystery' have no known price" in "\n".join(aligned(lines(found)))


def test_another_model_may_be_named_in_the_place_of_the_clients():
    own = msgspec.structs.replace(OWN, instead_of="gpt-4o")

    found = billed(msgspec.structs.replace(CALLS, model="headrace"), own=own)

    assert found.cloud_instead == pytest.approx(435)


def test_a_part_of_the_work_bears_a_part_of_the_costs():
    found = billed(CALLS, part=0.5)

    assert sum((found.own or {}).values()) == pytest.approx(178.94 / 2, abs=0.01)


def test_without_settings_own_costs_are_not_known():
    found = billed(CALLS, own=None)

    assert (found.cheaper, found.own, found.break_even) == ("unknown", None, None)
    assert "add `costs` to routes.yaml" in found.sentence
