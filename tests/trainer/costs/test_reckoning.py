"""What home and the cloud cost: the figures of others, the break-even, and the rules against it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from math import inf

import msgspec
import pytest

pytest.importorskip("scipy", reason="needs the train extra")

from proxy.protocol.hardware import CostSettings, Hardware
from proxy.protocol.prices import PRICES, Price
from trainer.costs.case import Case, Making, Tokens, read
from trainer.costs.claims import claims
from trainer.costs.reckoning import Reckoning, reckon
from trainer.costs.table import a_million
from trainer.errors import CostError

NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
FREE = Making(gpu_hours=0, judged=0, people_hours=0)
RENTED = CostSettings(
    hardware=[Hardware(name="rented", price=0, watts=0)], duty=0, per_kwh=0, other_per_month=185
)
"""$185 a month, whatever is asked."""


def case(**fields: object) -> Case:
    plain = Case(own=RENTED, making=FREE, clouds_share=0, first_hours=0, rows=2000)
    return msgspec.structs.replace(plain, **fields)


def rule(of: Reckoning, name: str) -> bool | None:
    return next(one for one in of.rules if one.name == name).speaks_against


# ---------------------------------------------------------------- published figures


@pytest.mark.parametrize(
    ("number", "reckoned", "full"),
    [(0, 83.28, 594.93), (1, 15_000, 1_700), (2, 60_000, 6_250), (3, 211.7, 611.7)],
)
def test_published_figures_come_out_and_what_they_leave_out_is_counted(number, reckoned, full):
    found = claims()[number]

    assert found.holds
    assert (found.reckoned, found.full) == pytest.approx((reckoned, full), abs=0.01)
    assert found.leaves_out


def test_the_published_break_even_forgets_hosting_and_people():
    found = claims()[4]

    assert found.holds
    assert found.reckoned == pytest.approx(117, abs=0.5)
    assert found.full == pytest.approx(117 + 3_528 + 66_667, abs=1)


def test_a_million_calls_cost_what_their_tokens_cost():
    costs = {model: amounts for model, _, amounts in a_million(PRICES)}

    assert costs["gpt-4o"] == pytest.approx([6_250, 4_350, 2_662.5, 2_000])
    assert costs["gpt-4o-mini"] == pytest.approx([375, 261, 159.75, 120])


# ---------------------------------------------------------------- break-even


@pytest.mark.parametrize(("price", "calls"), [((2.5, 10), 42_529), ((0.1, 0.5), 1_027_778)])
def test_home_breaks_even_where_fixed_costs_are_what_the_calls_cost(price, calls):
    cloud = Price(since=date(2026, 1, 1), input=price[0], output=price[1])

    found = reckon(case(price=cloud), PRICES, NOW)

    assert found.break_even == pytest.approx(calls, abs=1)
    even = reckon(case(price=cloud, calls=found.break_even), PRICES, NOW)
    assert even.saved == pytest.approx(0, abs=1e-6)


def test_the_clouds_share_of_the_calls_is_paid_all_the_same():
    alone, shared = (reckon(case(clouds_share=share), PRICES, NOW) for share in (0, 0.2))

    assert shared.saved == pytest.approx(alone.saved - 0.2 * alone.cloud)
    assert shared.break_even == pytest.approx(alone.break_even / 0.8)


def test_where_the_cloud_answers_everything_home_never_pays():
    found = reckon(case(clouds_share=1), PRICES, NOW)

    assert (found.break_even, found.payback) == (None, None)
    assert rule(found, "volume") is True
    assert found.sentence.startswith("The cloud is cheaper: $4,535.00 a month at home, $4,350.00")


def test_what_was_spent_at_first_comes_back_by_what_is_saved():
    own = msgspec.structs.replace(RENTED, per_ops_hour=100)

    found = reckon(case(own=own, first_hours=40), PRICES, NOW)

    assert found.saved == pytest.approx(4_350 - 185)
    assert found.payback == pytest.approx(4_000 / 4_165)
    assert found.sentence == (
        "Home is cheaper: $185.00 a month at home, $4,350.00 in the cloud; the first $4,000.00 are"
        " back in 1.0 months."
    )


def test_new_adapters_cost_labels_judges_machines_and_people():
    making = Making(gpu_hours=2, per_gpu_hour=3, labels=1000, judged=1000, people_hours=0)

    found = reckon(case(making=making, retrainings=2), PRICES, NOW)

    assert found.making == pytest.approx(
        {"training": 6, "labels": 4.35, "evaluation": 4.35, "people": 0}
    )
    assert found.own["new adapters"] == pytest.approx(2 * 14.7)


# ---------------------------------------------------------------- when not to


def test_little_volume_speaks_against_it():
    found = reckon(case(calls=20_000), PRICES, NOW)

    assert rule(found, "volume") is True
    assert "Home is cheaper from about 43\u202f000 calls a month on." in found.sentence


@pytest.mark.parametrize(("rows", "against"), [(986, True), (987, False), (None, None)])
def test_too_few_rows_to_train_on_and_to_hold_out_speak_against_it(rows, against):
    assert rule(reckon(case(rows=rows), PRICES, NOW), "rows") is against


def test_a_payback_that_takes_too_long_speaks_against_it():
    own = msgspec.structs.replace(RENTED, per_ops_hour=100)

    found = reckon(case(own=own, first_hours=600), PRICES, NOW)

    assert rule(found, "payback") is True
    assert found.sentence.startswith("Better not, because of payback:")


@pytest.mark.parametrize(("changes", "against"), [(8, False), (9, True)])
def test_schemas_that_change_more_often_than_it_pays_speak_against_it(changes, against):
    making = msgspec.structs.replace(FREE, gpu_hours=500, per_gpu_hour=1)

    found = reckon(case(making=making, retrainings=0, schema_changes=changes), PRICES, NOW)

    assert rule(found, "drift") is against


def test_schema_changes_that_cost_nothing_never_speak_against_it():
    found = reckon(case(schema_changes=30), PRICES, NOW)

    assert next(one for one in found.rules if one.name == "drift").limit == inf
    assert rule(found, "drift") is False


# ---------------------------------------------------------------- the file


def test_a_model_without_a_price_is_told_with_the_remedy():
    with pytest.raises(CostError, match=r"no price for 'gpt-9'; give `price`, or one of claude-"):
        reckon(case(model="gpt-9"), PRICES, NOW)


def test_a_case_is_read_and_its_faults_are_told_with_their_place(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text("calls: 5\ntokens: {prompt: 10, completion: 1}\n")
    assert read(path).tokens == Tokens(prompt=10, completion=1)

    path.write_text("own: {hardware: [{name: x, price: 1, wats: 2}], duty: 0, per_kwh: 0}\n")
    with pytest.raises(CostError, match=r"case\.yaml: .*`wats`.*own\.hardware\[0\]"):
        read(path)

    with pytest.raises(CostError, match=r"none\.yaml: No such file.*docs/costs\.md"):
        read(tmp_path / "none.yaml")
