"""What each rule of the gate finds, in numbers and in words, on both sides of its bounds."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

pytest.importorskip("scipy", reason="needs the train extra")

from proxy.protocol.evidence import bootstrap
from proxy.protocol.evidence.intervals import lower, upper
from tests.trainer.answers import answered, calls, none, report
from trainer import gate_rules as rules
from trainer.evaluate import Report
from trainer.figures import Answered
from trainer.gate_rules import Count, Evidence, Rule
from trainer.recipe import GateSettings

SETTINGS = GateSettings()
RIGHT = calls([True] * 400)


def evidence(
    candidate: list[Answered],
    champion: list[Answered] | None = None,
    cloud: list[Answered] | None = None,
    **more: Count | None,
) -> Evidence:
    return Evidence(
        candidate=[report("api-v2", candidate)],
        champion=[report("api-v1", champion)] if champion else [],
        cloud=[report("cloud", cloud)] if cloud else [],
        **more,
    )


def wrong(first: int, of: int) -> list[bool]:
    """`of` answers of which the `first` ones are wrong."""
    return [n >= first for n in range(of)]


def found(rule: Rule | None) -> tuple[str, str, int | None]:
    assert rule is not None
    return rule.state, rule.sentence, rule.more


def test_evidence_is_called_as_its_candidate_is():
    shown = evidence(RIGHT)

    assert (shown.name, shown.dataset, shown.sealed) == ("api-v2", "sha256:1", False)


# ---------------------------------------------------------------- beside the cloud


@pytest.mark.parametrize(
    ("mine", "cloud", "state", "said", "more"),
    [
        (
            RIGHT,
            RIGHT,
            "holds",
            "it is right about as often as the cloud or more"
            " (+0.0 points beside the cloud, 400 items; at worst -0.7 points).",
            None,
        ),
        (
            calls(wrong(40, 400)),
            RIGHT,
            "fails",
            "it is right too seldom (-10.0 points beside the cloud, 400 items;"
            " at best -7.8 points, and 3 points fewer are allowed).",
            None,
        ),
        (
            calls(wrong(5, 50)),
            calls([n < 45 for n in range(50)]),
            "open",
            "50 items leave open whether it is as good as the cloud (+0.0 points beside the cloud,"
            " 50 items; at worst -11.1 points, and 3 points fewer are allowed);"
            " some 562 more would tell at these rates.",
            562,
        ),
        (
            calls(wrong(12, 400)),
            RIGHT,
            "open",
            "400 items leave open whether it is as good as the cloud (-3.0 points beside the cloud,"
            " 400 items; at worst -4.7 points, and 3 points fewer are allowed);"
            " no number of items at these rates would tell.",
            None,
        ),
    ],
)
def test_beside_the_cloud(mine, cloud, state, said, more):
    rule = rules.not_worse_than_the_cloud(evidence(mine, cloud=cloud), SETTINGS)

    assert rule.name == "not worse than the cloud"
    assert found(rule) == (state, said, more)


def test_numbers_beside_the_cloud():
    mine, cloud = [*calls(wrong(9, 100))], [*calls([n >= 4 for n in range(100)])]

    numbers = rules.not_worse_than_the_cloud(evidence(mine, cloud=cloud), SETTINGS).numbers

    assert numbers.pop("low") < -0.03 < numbers.pop("high")
    assert numbers == {
        "n": 100,
        "only_candidate": 0,
        "only_other": 5,
        "worth": 100.0,
        "gain": -0.05,
        "margin": 0.03,
    }


def test_conversation_of_like_rows_is_worth_less_than_its_rows():
    groups = [f"g{n // 4}" for n in range(400)]
    mine = [replace(a, group=g) for a, g in zip(calls(wrong(40, 400)), groups, strict=True)]

    rule = rules.not_worse_than_the_cloud(evidence(mine, cloud=RIGHT), SETTINGS)

    assert rule.numbers["n"] == 400
    assert rule.numbers["worth"] == pytest.approx(100, abs=5)


def test_nothing_in_common_with_the_cloud_leaves_it_open_and_has_no_number():
    rule = rules.not_worse_than_the_cloud(evidence(RIGHT, cloud=none([True])), SETTINGS)

    assert (rule.state, rule.more, rule.numbers["n"]) == ("open", None, 0)


def test_without_a_margin_or_a_cloud_there_is_nothing_to_compare():
    rule = rules.not_worse_than_the_cloud(evidence(RIGHT), SETTINGS)

    assert found(rule) == ("open", "the cloud was not asked.", None)
    assert rule.numbers == {}
    assert rules.not_worse_than_the_cloud(evidence(RIGHT), replace(SETTINGS, margin=None)) is None
    assert rules.cloud_pairs(evidence(RIGHT, champion=RIGHT), SETTINGS) is None
    assert rules.cloud_pairs(evidence(RIGHT, cloud=RIGHT), SETTINGS).n == 400
    assert rules.champion_pairs(evidence(RIGHT, cloud=RIGHT), SETTINGS) is None
    assert rules.champion_pairs(evidence(RIGHT, champion=RIGHT), SETTINGS).n == 400


def test_what_is_right_is_what_the_recipe_says():
    mine = [replace(a, score=replace(a.score, call_exact=False)) for a in RIGHT]

    exact = rules.cloud_pairs(evidence(mine, cloud=RIGHT), SETTINGS)
    match = rules.cloud_pairs(evidence(mine, cloud=RIGHT), replace(SETTINGS, figure="call_match"))

    assert (exact.only_second, match.only_second) == (400, 0)


# ---------------------------------------------------------------- beside the champion

SLOW = calls([True] * 400, seconds=3.0)
DEAR = calls([True] * 400, model="gpt-4o")


@pytest.mark.parametrize(
    ("mine", "champion", "state", "said", "more"),
    [
        (
            RIGHT,
            calls(wrong(6, 400)),
            "holds",
            "it is right more often than the champion (+1.5 points, p = 0.031, 400 items).",
            None,
        ),
        (
            calls(wrong(6, 400)),
            RIGHT,
            "fails",
            "it is right less often than the champion (-1.5 points, p = 0.031, 400 items).",
            None,
        ),
        (
            calls(wrong(5, 50)),
            calls([n < 45 for n in range(50)]),
            "open",
            "50 items do not tell it from the champion (+0.0 points);"
            " some 1329 more would tell at these rates.",
            1329,
        ),
        (
            RIGHT,
            SLOW,
            "holds",
            "it is not worse than the champion (+0.0 points) and cheaper,"
            " 5.6e-05 instead of 0.00017 US dollars an answer.",
            None,
        ),
        (
            RIGHT,
            DEAR,
            "holds",
            "it is not worse than the champion (+0.0 points) and cheaper,"
            " 5.6e-05 instead of 0.0013 US dollars an answer.",
            None,
        ),
        (
            RIGHT,
            RIGHT,
            "no reason",
            "it is not worse than the champion (+0.0 points), but neither better nor cheaper,"
            " 5.6e-05 instead of 5.6e-05 US dollars an answer.",
            None,
        ),
        (
            SLOW,
            calls(wrong(5, 400)),
            "no reason",
            "it is not worse than the champion (+1.2 points), but neither better nor cheaper,"
            " 0.00017 instead of 5.6e-05 US dollars an answer.",
            None,
        ),
    ],
)
def test_beside_the_champion(mine, champion, state, said, more):
    rule = rules.worth_the_change(evidence(mine, champion=champion), SETTINGS)

    assert rule.name == "worth the change"
    assert found(rule) == (state, said, more)


def test_one_that_is_cheaper_and_worse_by_more_than_the_margin_fails_without_a_small_p():
    settings = replace(SETTINGS, alpha=0.01, champion_margin=0.0001)
    dear = evidence(calls(wrong(6, 400)), champion=DEAR)

    rule = rules.worth_the_change(dear, settings)

    assert rule.numbers["p"] > settings.alpha
    assert rule.state == "fails"


@pytest.mark.parametrize(
    ("mine", "state", "said"),
    [
        (
            RIGHT,
            "holds",
            "it is not worse than the champion (+0.0 points), which learnt from what was erased"
            " since.",
        ),
        (calls(wrong(6, 400)), "fails", "it is right less often than the champion"),
        (calls(wrong(1, 50)), "open", "50 items do not tell it from the champion"),
    ],
)
def test_champion_that_must_go_makes_room_for_one_that_is_not_worse(mine, state, said):
    shown = replace(evidence(mine, champion=RIGHT), must_go=True)

    rule = rules.worth_the_change(shown, replace(SETTINGS, alpha=0.04))

    assert not evidence(RIGHT).must_go
    assert rule.state == state
    assert rule.sentence.startswith(said)


def test_numbers_beside_the_champion():
    rule = rules.worth_the_change(evidence(RIGHT, champion=calls(wrong(6, 400))), SETTINGS)

    assert rule.numbers["p"] == pytest.approx(2 * 0.5**6)
    assert rule.numbers["cost"] == rule.numbers["champion_cost"] == pytest.approx(0.2 / 3600)
    assert (rule.numbers["only_candidate"], rule.numbers["gain"]) == (6, 0.015)
    assert 0 < rule.numbers["low"] < 0.015
    assert rules.worth_the_change(evidence(RIGHT, cloud=RIGHT), SETTINGS) is None


def priced(*answers: Answered) -> float:
    made: list[Report] = [report("x", list(answers))]
    return rules.usd_per_answer(made, replace(SETTINGS, machine_usd_hour=7.2))


def test_answer_costs_its_tokens_or_the_machine_s_time():
    local, cloud = answered("a", seconds=2.0), answered("b", model="gpt-4o")

    assert priced(local) == pytest.approx(0.004)
    assert priced(cloud) == pytest.approx((400 * 2.5 + 30 * 10) / 1e6)
    assert priced(local, cloud) == pytest.approx((0.004 + 0.0013) / 2)
    assert math.isnan(priced())


# ---------------------------------------------------------------- slices and pinned rows


def tooled(rights: list[bool], tool: str) -> list[Answered]:
    return [answered(f"{tool}{n}", right=right, tool=tool) for n, right in enumerate(rights)]


def test_slice_that_got_worse_is_named_with_its_points():
    mine = [*tooled(wrong(20, 40), "rain"), *tooled([True] * 40, "tides")]
    theirs = [*tooled([True] * 40, "rain"), *tooled(wrong(20, 40), "tides")]

    rule = rules.no_slice_worse(evidence(mine, champion=theirs), SETTINGS)

    assert found(rule) == ("fails", "it got worse on tool rain (-50.0 points).", None)
    assert (rule.numbers["slices"], rule.numbers["too_small"]) == (3, 0)
    assert rule.numbers["p tool rain"] == pytest.approx(3 * 2 * 0.5**20)
    assert rule.numbers["p category live"] == pytest.approx(1.0)


def test_slices_that_are_small_are_counted_and_not_tested():
    mine = [*tooled([False] * 20, "rain"), *tooled([False] * 19, "tides")]
    theirs = [replace(a, score=replace(a.score, call_exact=True)) for a in mine]
    mine, theirs = ([replace(a, category="") for a in part] for part in (mine, theirs))

    rule = rules.no_slice_worse(evidence(mine, champion=theirs), SETTINGS)

    assert rule.sentence == "it got worse on tool rain (-100.0 points)."
    assert rule.numbers == {
        "slices": 1,
        "too_small": 1,
        "p tool rain": pytest.approx(2 * 0.5**20),
    }


def test_slices_that_are_as_good_hold_and_the_champion_goes_before_the_cloud():
    mine = calls(wrong(20, 40))

    rule = rules.no_slice_worse(evidence(mine, champion=mine, cloud=calls([True] * 40)), SETTINGS)

    assert found(rule) == ("holds", "none of 2 slices got worse.", None)
    assert rules.no_slice_worse(evidence(mine, cloud=calls([True] * 40)), SETTINGS).state == "fails"
    assert rules.no_slice_worse(evidence(mine), SETTINGS) is None


PINNED = replace(SETTINGS, critical=("c0", "c1", "c2", "c3"))


@pytest.mark.parametrize(
    ("mine", "before", "state", "said", "numbers"),
    [
        (wrong(0, 9), wrong(0, 9), "holds", "all 4 critical rows are right.", (4, 0, 0)),
        (
            wrong(4, 9),
            wrong(0, 9),
            "fails",
            "it fails 4 rows that must not fail (c0, c1, c2).",
            (4, 4, 0),
        ),
        (wrong(4, 9), wrong(9, 9), "holds", "all 4 critical rows are right.", (4, 0, 0)),
        (
            wrong(1, 9),
            wrong(0, 0),
            "fails",
            "it fails 1 rows that must not fail (c0).",
            (4, 1, 0),
        ),
        (wrong(0, 2), wrong(0, 9), "open", "2 critical rows were not asked.", (4, 0, 2)),
        (
            wrong(1, 2),
            wrong(0, 9),
            "fails",
            "it fails 1 rows that must not fail (c0).",
            (4, 1, 2),
        ),
    ],
)
def test_rows_that_must_not_fail(mine, before, state, said, numbers):
    rule = rules.critical(evidence(calls(mine), champion=calls(before)), PINNED)

    assert found(rule) == (state, said, None)
    assert tuple(rule.numbers.values()) == numbers


def test_pinned_rows_are_held_against_the_champion_else_against_the_cloud():
    bad, good = calls(wrong(4, 9)), calls(wrong(0, 9))

    assert rules.critical(evidence(bad, champion=bad, cloud=good), PINNED).state == "holds"
    assert rules.critical(evidence(bad, cloud=good), PINNED).state == "fails"
    assert rules.critical(evidence(bad, cloud=good), SETTINGS) is None


# ---------------------------------------------------------------- what must not happen

NEEDLESS = "it calls a tool in {} of {} requests that need none "


@pytest.mark.parametrize(
    ("answers", "state", "said", "more"),
    [
        (
            [*none([True] * 60), *RIGHT],
            "holds",
            NEEDLESS.format(0, 60) + "(at most 4.9% with 95% certainty; 10.0% are allowed).",
            None,
        ),
        (
            none([True] * 20),
            "open",
            NEEDLESS.format(0, 20) + "(at most 13.9% with 95% certainty; 10.0% are allowed);"
            " some 9 more would tell at these rates.",
            9,
        ),
        (
            none(wrong(31, 120)),
            "fails",
            NEEDLESS.format(31, 120) + "(at least 19.4% with 95% certainty; 10.0% are allowed).",
            None,
        ),
        (
            none(wrong(10, 100)),
            "open",
            NEEDLESS.format(10, 100) + "(at most 16.4% with 95% certainty; 10.0% are allowed);"
            " no number of items at these rates would tell.",
            None,
        ),
        (
            none(wrong(14, 100)),
            "open",
            NEEDLESS.format(14, 100) + "(at most 21.0% with 95% certainty; 10.0% are allowed);"
            " some 92 more would tell at these rates.",
            92,
        ),
        (
            none([False]),
            "open",
            NEEDLESS.format(1, 1) + "(at most 100.0% with 95% certainty; 10.0% are allowed);"
            " some 1 more would tell at these rates.",
            1,
        ),
        (
            RIGHT,
            "open",
            NEEDLESS.format(0, 0) + "(at most 100.0% with 95% certainty; 10.0% are allowed);"
            " some 29 more would tell at these rates.",
            29,
        ),
    ],
)
def test_calls_that_nobody_asked_for(answers, state, said, more):
    rule = rules.few_false_calls(evidence(answers), SETTINGS)

    assert rule.name == "few false calls"
    assert found(rule) == (state, said, more)


def test_numbers_of_calls_that_nobody_asked_for():
    rule = rules.few_false_calls(evidence(none(wrong(31, 120))), SETTINGS)

    assert rule.numbers == {
        "hits": 31,
        "n": 120,
        "low": lower(31, 120, 0.95),
        "high": upper(31, 120, 0.95),
        "cap": 0.1,
    }


def test_bound_that_is_met_exactly_is_kept():
    met = replace(SETTINGS, false_calls=upper(0, 60, 0.95))
    open_ = replace(SETTINGS, false_calls=lower(31, 120, 0.95))

    assert rules.few_false_calls(evidence(none([True] * 60)), met).state == "holds"
    assert rules.few_false_calls(evidence(none(wrong(31, 120))), open_).state == "open"
    assert rules.few_false_calls(evidence(RIGHT), replace(SETTINGS, false_calls=None)) is None


QUIET = none([True] * 60)


@pytest.mark.parametrize(
    ("mine", "champion", "cloud", "state", "said"),
    [
        (
            none(wrong(20, 60)),
            QUIET,
            QUIET,
            "fails",
            "it makes more calls that nobody asked for than the champion (+33.3 points) and the"
            " cloud (+33.3 points).",
        ),
        (
            none(wrong(20, 60)),
            none(wrong(20, 60)),
            QUIET,
            "fails",
            "it makes more calls that nobody asked for than the cloud (+33.3 points).",
        ),
        (
            QUIET,
            none(wrong(20, 60)),
            QUIET,
            "holds",
            "it makes no more false calls than the champion and the cloud.",
        ),
        (
            QUIET,
            QUIET,
            RIGHT,
            "holds",
            "it makes no more false calls than the champion.",
        ),
    ],
)
def test_more_calls_that_nobody_asked_for_than_others(mine, champion, cloud, state, said):
    rule = rules.no_more_false_calls(evidence(mine, champion, cloud), SETTINGS)

    assert rule.name == "no more false calls"
    assert found(rule) == (state, said, None)


def test_numbers_of_more_false_calls_than_others():
    rule = rules.no_more_false_calls(evidence(none(wrong(6, 60)), QUIET, QUIET), SETTINGS)

    assert rule.numbers == {
        "p the champion": pytest.approx(4 * 0.5**6),
        "p the cloud": pytest.approx(4 * 0.5**6),
        "more than the champion": pytest.approx(0.1),
        "more than the cloud": pytest.approx(0.1),
    }
    # Twice 1/32 is above 0.05: one comparison alone would have failed.
    assert rule.state == "holds"
    assert rules.no_more_false_calls(evidence(none(wrong(6, 60)), QUIET), SETTINGS).state == "fails"


def test_without_anybody_s_rows_that_need_no_call_nobody_makes_more():
    assert rules.no_more_false_calls(evidence(QUIET), SETTINGS) is None
    assert rules.no_more_false_calls(evidence(QUIET, RIGHT, RIGHT), SETTINGS) is None


@pytest.mark.parametrize(
    ("broken", "of", "state", "said"),
    [
        (1, 800, "holds", "1 of 800 answers break their schema (at most 0.6% with 95% certainty;"),
        (40, 400, "fails", "40 of 400 answers break their schema (at least 7.6% with"),
        (4, 400, "open", "4 of 400 answers break their schema (at most 2.3% with 95% certainty;"),
    ],
)
def test_answers_that_break_their_schema(broken, of, state, said):
    answers = [answered(f"c{n}", valid=n >= broken) for n in range(of)]

    rule = rules.valid(evidence(answers), SETTINGS)

    assert (rule.name, rule.state) == ("valid answers", state)
    assert rule.sentence.startswith(said)
    assert (rule.numbers["hits"], rule.numbers["n"]) == (broken, of)
    assert rule.numbers["cap"] == pytest.approx(0.01)
    assert rules.valid(evidence(answers), replace(SETTINGS, schema_validity=None)) is None


@pytest.mark.parametrize(
    ("count", "state", "said"),
    [
        (None, "open", "whether {} was not measured."),
        (Count(0, 0), "open", "whether {} was not measured."),
        (Count(1, 1), "fails", "1 of 1 {}."),
        (Count(2, 200), "fails", "2 of 200 {}."),
        (Count(0, 200), "holds", "0 of 200 {}."),
    ],
)
def test_what_must_not_happen_once(count, state, said):
    settings = replace(SETTINGS, canaries=True)

    prompts = rules.parity(evidence(RIGHT, parity=count), settings)
    planted = rules.canaries(evidence(RIGHT, canaries=count), settings)

    told = said.format("prompts differ between training and serving")
    assert (prompts.name, *found(prompts)) == ("parity", state, told, None)
    told = said.format("planted personal data came out")
    assert (planted.name, *found(planted)) == ("canaries", state, told, None)


def test_numbers_of_what_must_not_happen():
    rule = rules.parity(evidence(RIGHT, parity=Count(0, 200)), SETTINGS)

    assert rule.numbers == {"hits": 0, "n": 200, "high": pytest.approx(1 - 0.05 ** (1 / 200))}
    assert rules.parity(evidence(RIGHT), replace(SETTINGS, parity=False)) is None
    assert rules.canaries(evidence(RIGHT), SETTINGS) is None


def paced(slow: int) -> list[Answered]:
    """400 answers in a second each, but so many in five."""
    return [answered(f"c{n}", seconds=5.0 if n < slow else 1.0) for n in range(400)]


@pytest.mark.parametrize(
    ("slow", "cap", "state", "said"),
    [
        (24, 5.0, "holds", "95 % of the answers take at most 1 to 5 s; 5 s are allowed."),
        (24, 2.0, "open", "95 % of the answers take at most 1 to 5 s; 2 s are allowed."),
        (24, 1.0, "open", "95 % of the answers take at most 1 to 5 s; 1 s are allowed."),
        (24, 0.5, "fails", "95 % of the answers take at most 1 to 5 s; 0.5 s are allowed."),
        (40, 2.0, "fails", "95 % of the answers take at most 5 to 5 s; 2 s are allowed."),
        (5, 2.0, "holds", "95 % of the answers take at most 1 to 1 s; 2 s are allowed."),
    ],
)
def test_time_that_95_percent_of_the_answers_take(slow, cap, state, said):
    rule = rules.quick(evidence(paced(slow)), replace(SETTINGS, p95_seconds=cap))

    assert rule.name == "quick"
    assert found(rule) == (state, said, None)
    assert rule.numbers["cap"] == cap


def test_bounds_of_the_time_are_those_of_its_quantile():
    seconds = [n / 100 for n in range(300)]
    answers = [answered(f"c{n}", seconds=s) for n, s in enumerate(seconds)]

    rule = rules.quick(evidence(answers), replace(SETTINGS, p95_seconds=3.0))

    bounds = bootstrap.quantile(seconds, 0.95, certainty=0.9)
    assert (rule.numbers["low"], rule.numbers["high"]) == (bounds.low, bounds.high)
    assert rules.quick(evidence(answers), SETTINGS) is None


# ---------------------------------------------------------------- in words


def change(state: str, **numbers: float) -> Rule:
    return Rule(name="worth the change", state=state, numbers=numbers, sentence="")


@pytest.mark.parametrize(
    ("rule", "praised"),
    [
        (change("holds", gain=0.063), True),
        (change("holds", gain=0.0), False),
        (change("holds", gain=-0.01), False),
        (change("holds"), False),
        (change("fails", gain=0.063), False),
        (replace(change("holds", gain=0.063), name="quick"), False),
    ],
)
def test_praise_is_for_one_that_is_right_more_often(rule, praised):
    said = (
        "It is right more often than the champion (+6.3 points), and that does not make up for it."
    )

    assert rules.praise([rule]) == (said if praised else "")
