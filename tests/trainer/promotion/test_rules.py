"""Stop rules: what they count, and when they stop."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.trainer.promotion.simulations import simulate, simulate_limited, simulate_unseen
from trainer.promotion import rules
from trainer.promotion.rules import Count, Finding, Pair, Request, Side
from trainer.promotion.settings import UNSAID, Limits, PromotionSettings
from trainer.promotion.steps import told

INVALID = PromotionSettings(rules=("invalid",))
NONE: rules.Limited = {}


def requests(side: Side, failed: int, of: int, **more: object) -> list[Request]:
    """So many conversations of one request each, the first of them failed."""
    return [
        Request(at=n, unit=f"{side}-{n}", side=side, **({"invalid": n < failed} | more))
        for n in range(of)
    ]


def found(seen: list[Request], share: float = 0.05) -> Finding:
    (one,) = rules.findings(seen, share, INVALID, NONE)
    return one


def test_four_failures_of_the_candidate_alone_at_five_percent_are_no_chance():
    seen = [*requests("candidate", 4, 4), *requests("champion", 0, 76)]

    assert found(seen).state == "worse"
    assert (found(seen).candidate, found(seen).champion) == (Count(4, 4), Count(0, 76))


def test_as_many_failures_prove_nothing_where_the_champion_fails_as_often():
    seen = [*requests("candidate", 4, 10), *requests("champion", 76, 190)]

    assert found(seen).state == "open"


def test_the_share_decides_what_is_chance():
    seen = [*requests("candidate", 4, 4), *requests("champion", 0, 4)]

    assert found(seen, 0.5).state == "open"


def test_a_conversation_fails_once():
    again = Request(at=99, unit="candidate-0", side="candidate", invalid=True)
    seen = [*requests("candidate", 1, 1), *[again] * 9, *requests("champion", 0, 19)]

    assert found(seen).candidate == Count(1, 1)


def test_enough_flawless_conversations_show_that_it_is_not_worse():
    few = [*requests("candidate", 0, 20), *requests("champion", 0, 300)]
    many = [*requests("candidate", 0, 100), *requests("champion", 0, 300)]

    assert found(few).state == "open"
    assert found(many).state == "not worse"


def test_what_nobody_knows_stops_nobody():
    seen = requests("candidate", 0, 40, invalid=None)

    assert found(seen).state == "silent"


def test_requests_that_chance_put_nowhere_are_not_compared():
    seen = [replace(one, is_drawn=False) for one in requests("candidate", 9, 9)]

    assert found(seen).state == "silent"


def test_each_rule_stops_for_itself():
    settings = PromotionSettings(rules=("invalid", "slow"))
    slow = requests("candidate", 0, 6, invalid=False, slow=True)
    quick = requests("champion", 0, 90, invalid=False, slow=False)

    states = {one.rule: one.state for one in rules.findings([*slow, *quick], 0.05, settings, NONE)}

    assert states == {"invalid": "open", "slow": "worse"}


@pytest.mark.parametrize(("failed", "state"), [(0, "not worse"), (12, "open"), (60, "worse")])
def test_new_champion_is_compared_with_the_former_one_before_it(failed, state):
    now = [replace(one, is_drawn=False) for one in requests("candidate", failed, 100)]
    before = requests("champion", 3, 300)

    (one,) = rules.held(now, before, INVALID, NONE)

    assert one.state == state


def test_new_champion_without_a_former_one_is_worse_than_nobody():
    (one,) = rules.held(requests("candidate", 9, 9), [], INVALID, NONE)

    assert one.state != "worse"


# ---------------------------------------------------------------- a domain's first adapter


@pytest.mark.parametrize(("failed", "state"), [(0, "not worse"), (10, "open"), (30, "worse")])
def test_a_first_adapter_has_a_limit_whatever_the_other_side_fails(failed, state):
    seen = [*requests("candidate", failed, 60), *requests("champion", 0, 60)]

    (drawn,) = rules.findings(seen, 0.5, INVALID, {"invalid": 0.2})
    (later,) = rules.held(seen, [], INVALID, {"invalid": 0.2})

    assert (drawn.state, drawn.candidate, drawn.champion) == (state, Count(failed, 60), Count(0, 0))
    assert later == drawn
    assert told(drawn) == f"invalid in {failed} of 60 conversations, 20% of them are allowed"


def test_rules_without_a_limit_compare_all_the_same():
    settings = PromotionSettings(rules=("invalid", "slow"))
    ours = requests("candidate", 0, 6, invalid=True, slow=True)
    theirs = requests("champion", 0, 90, invalid=False, slow=False)

    invalid, slow = rules.findings([*ours, *theirs], 0.05, settings, {"invalid": 0.5})

    assert (invalid.state, invalid.limit) == ("open", 0.5)
    assert (slow.state, slow.limit) == ("worse", None)


def test_the_first_request_of_a_conversation_that_tells_something_counts():
    silent, good = requests("candidate", 0, 9, invalid=None), requests("candidate", 0, 9)
    bad = requests("candidate", 9, 9)

    (first,) = rules.findings([*silent, *good, *bad], 0.5, INVALID, {"invalid": 0.2})
    (other,) = rules.findings([*silent, *bad, *good], 0.5, INVALID, {"invalid": 0.2})

    assert (first.candidate, other.candidate) == (Count(0, 9), Count(9, 9))


def test_the_gate_s_limit_holds_unless_one_is_set():
    ours = PromotionSettings(limits=Limits(disagreed=0.4))

    assert PromotionSettings().limits.shares["disagreed"] == UNSAID
    assert PromotionSettings().allowing(None).limits.shares["disagreed"] == UNSAID
    assert PromotionSettings().allowing(0.03).limits.shares["disagreed"] == 0.03
    assert ours.allowing(0.03).limits.shares["disagreed"] == 0.4


# ---------------------------------------------------------------- out of the clients' sight


def pairs(ours: int, theirs: int, both: int = 0, neither: int = 0) -> list[Pair]:
    """So many conversations that only the candidate failed, only the champion, and so on."""
    failed = [(True, False)] * ours + [(False, True)] * theirs
    failed += [(True, True)] * both + [(False, False)] * neither
    return [
        Pair(
            candidate=Request(at=n, unit=f"{n}", side="candidate", invalid=mine),
            champion=Request(at=n, unit=f"{n}", side="champion", invalid=other),
        )
        for n, (mine, other) in enumerate(failed)
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "both", "state"),
    [(12, 0, 0, "worse"), (12, 0, 60, "worse"), (11, 0, 0, "open"), (12, 4, 0, "open")],
)
def test_conversations_that_only_one_of_them_failed_decide(ours, theirs, both, state):
    one, silent = rules.paired(pairs(ours, theirs, both), PromotionSettings(), NONE)

    assert (one.rule, one.state) == ("invalid", state)
    assert (silent.rule, silent.state) == ("disagreed", "silent")
    assert (one.candidate.failed, one.champion.failed) == (ours + both, theirs + both)


def test_an_unseen_conversation_fails_once():
    again = [
        replace(one, candidate=replace(one.candidate, unit="0")) for one in pairs(12, 0, neither=3)
    ]

    (one,) = rules.paired(again, INVALID, NONE)

    assert (one.state, one.candidate) == ("open", Count(1, 1))


def test_of_what_only_one_side_is_known_nothing_is_told():
    unknown = [replace(one, champion=replace(one.champion, invalid=None)) for one in pairs(30, 0)]

    (one,) = rules.paired(unknown, INVALID, NONE)

    assert one.state == "silent"


def test_a_first_adapter_has_its_limit_out_of_sight_too():
    some, most = pairs(13, 0, neither=47), pairs(40, 0, neither=20)

    (few,), (many,) = (rules.paired(seen, INVALID, {"invalid": 0.3}) for seen in (some, most))

    assert (few.state, few.candidate, few.limit) == ("open", Count(13, 60), 0.3)
    assert many.state == "worse"


# ---------------------------------------------------------------- on traffic of known quality


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_candidate_as_good_as_the_champion_is_seldom_sent_back(rate):
    assert simulate(rate, rate, runs=300, seed=3, rules=6).stopped <= 0.05


def test_candidate_that_always_fails_is_sent_back_after_few_conversations():
    found = simulate(1.0, 0.02, runs=100, seed=4)

    assert found.stopped == 1.0
    assert found.largest <= 8


def test_candidate_that_fails_often_is_sent_back_within_the_stages():
    assert simulate(0.3, 0.02, runs=100, seed=5).stopped >= 0.98


def test_candidate_that_fails_half_is_sent_back_before_a_client_sees_it():
    assert simulate_unseen(0.5, 0.02, runs=300, seed=6).stopped >= 0.8
    assert simulate_unseen(0.3, 0.3, runs=300, seed=6).stopped <= 0.01


@pytest.mark.parametrize("limit", [0.03, 0.25])
def test_a_first_adapter_at_its_limit_is_seldom_sent_back(limit):
    assert simulate_limited(limit, limit, runs=300, seed=7, rules=3).stopped <= 0.05
    assert simulate_limited(1.0, limit, runs=10, seed=7).largest <= 8
