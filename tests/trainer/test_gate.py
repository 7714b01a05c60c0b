"""The gate: candidates whose truth is known, and what a person is told about them."""

from __future__ import annotations

import math
import os
import random
from collections import Counter

import msgspec
import pytest

pytest.importorskip("scipy", reason="needs the train extra")

from tests.trainer.answers import answered, calls, none, report
from trainer import gate
from trainer.errors import GateError
from trainer.gate import Verdict, decide
from trainer.gate_rules import Count, Evidence
from trainer.recipe import GateSettings

SETTINGS = GateSettings()
GATES = int(os.environ.get("HEADRACE_GATES", "200"))
"""Simulated gates; `make test-gate` runs 2,000."""
NOTHING_CALLED = none([True] * 60)
"""Sixty rows that need no call, all answered by none: at most 4.9 % false calls."""


def evidence(candidate, champion=None, cloud=None, **more) -> Evidence:
    more.setdefault("parity", Count(0, 200))
    return Evidence(
        candidate=[report("api-v2", candidate)],
        champion=[report("api-v1", champion)] if champion else [],
        cloud=[report("cloud", cloud)] if cloud else [],
        **more,
    )


def rule(verdict: Verdict, name: str):
    (found,) = [one for one in verdict.rules if one.name == name]
    return found


def wrong(first: int, of: int) -> list[bool]:
    """`of` answers of which the `first` ones are wrong."""
    return [n >= first for n in range(of)]


GOOD = [*calls([True] * 400), *NOTHING_CALLED]
MIDDLING = [*calls(wrong(40, 400)), *NOTHING_CALLED]


# ---------------------------------------------------------------- the four verdicts


def test_a_candidate_that_shows_everything_is_promoted():
    verdict = decide(evidence(GOOD, champion=MIDDLING, cloud=GOOD), SETTINGS)

    assert verdict.decision == "promote"
    assert {one.state for one in verdict.rules} == {"holds"}
    assert verdict.sentence.startswith("Promote api-v2: it is right about as often as the cloud")


def test_one_that_is_worse_than_the_cloud_is_refused():
    bad = [*calls(wrong(80, 400)), *NOTHING_CALLED]

    verdict = decide(evidence(bad, cloud=GOOD), SETTINGS)

    assert verdict.decision == "refuse"
    assert "it is right too seldom (-17.4 points beside the cloud, 460 items" in verdict.sentence


def test_few_items_decide_nothing_and_say_how_many_would():
    few = [*calls(wrong(5, 50)), *none([True] * 50)]
    other = [*calls([n < 45 for n in range(50)]), *none([True] * 50)]

    verdict = decide(evidence(few, cloud=other), SETTINGS)

    assert verdict.decision == "not decidable"
    assert rule(verdict, "not worse than the cloud").state == "open"
    assert 100 < rule(verdict, "not worse than the cloud").more < 1000
    assert "more would tell at these rates" in verdict.sentence
    assert "can only show a difference of" in verdict.power


def test_one_that_makes_no_difference_is_held():
    verdict = decide(evidence(GOOD, champion=GOOD, cloud=GOOD), SETTINGS)

    assert verdict.decision == "hold"
    assert "neither better nor cheaper" in verdict.sentence


def test_one_that_is_as_good_takes_the_place_of_a_champion_that_must_go():
    verdict = decide(evidence(GOOD, champion=GOOD, cloud=GOOD, must_go=True), SETTINGS)

    assert verdict.decision == "promote"
    assert "which learnt from what was erased" in rule(verdict, "worth the change").sentence


def test_one_that_is_as_good_and_cheaper_is_promoted():
    slow = [msgspec.structs.replace(answer, seconds=3.0) for answer in GOOD]

    verdict = decide(evidence(GOOD, champion=slow, cloud=GOOD), SETTINGS)

    assert verdict.decision == "promote"
    assert "cheaper" in rule(verdict, "worth the change").sentence


def test_one_that_is_worse_than_the_champion_is_refused():
    verdict = decide(
        evidence(MIDDLING, champion=GOOD), msgspec.structs.replace(SETTINGS, margin=None)
    )

    assert verdict.decision == "refuse"
    assert rule(verdict, "worth the change").state == "fails"


def test_a_cloud_that_was_not_asked_leaves_it_open():
    verdict = decide(evidence(GOOD), SETTINGS)

    assert verdict.decision == "not decidable"
    assert "the cloud was not asked" in verdict.sentence


# ---------------------------------------------------------------- calls that nobody asked for


def test_one_that_is_better_but_calls_when_it_should_not_is_refused_in_plain_words():
    better = [*calls([True] * 400), *none(wrong(31, 120))]
    champion = [*calls(wrong(60, 400)), *none(wrong(4, 120))]
    settings = msgspec.structs.replace(SETTINGS, margin=None)

    verdict = decide(evidence(better, champion=champion), settings)

    assert verdict.decision == "refuse"
    assert verdict.sentence == (
        "Refuse api-v2: it calls a tool in 31 of 120 requests that need none (at least 19.4% with"
        " 95% certainty; 10.0% are allowed). Also, it makes more calls that nobody asked for than"
        " the champion (+22.5 points). It is right more often than the champion (+6.3 points), and"
        " that does not make up for it."
    )


def test_too_few_rows_without_a_call_cannot_show_that_false_calls_are_rare():
    few = [*calls([True] * 400), *none([True] * 20)]

    verdict = decide(evidence(few, cloud=few), SETTINGS)

    assert verdict.decision == "not decidable"
    assert rule(verdict, "few false calls").more == 9


# ---------------------------------------------------------------- the other rules


def test_answers_that_break_their_schema_are_refused():
    broken = [answered(f"c{n}", valid=n % 10 > 0) for n in range(400)]

    verdict = decide(evidence([*broken, *NOTHING_CALLED], cloud=GOOD), SETTINGS)

    assert verdict.decision == "refuse"
    assert rule(verdict, "valid answers").numbers["hits"] == 40


def test_a_tool_that_got_worse_is_named_though_the_whole_got_better():
    tools = ["rain"] * 40 + ["tides"] * 360
    worse = calls(wrong(20, 400))
    champion = calls([not 40 <= n < 140 for n in range(400)])
    mine, theirs = (
        [msgspec.structs.replace(a, tool=t) for a, t in zip(answers, tools, strict=True)]
        for answers in (worse, champion)
    )

    verdict = decide(
        evidence([*mine, *NOTHING_CALLED], champion=[*theirs, *NOTHING_CALLED], cloud=GOOD),
        msgspec.structs.replace(SETTINGS, margin=None),
    )

    assert rule(verdict, "worth the change").state == "holds"
    assert verdict.decision == "refuse"
    assert "it got worse on tool rain (-50.0 points)" in verdict.sentence


@pytest.mark.parametrize(
    ("mine", "before", "state"),
    [(True, True, "holds"), (False, True, "fails"), (False, False, "holds")],
)
def test_a_critical_row_must_not_become_wrong(mine, before, state):
    settings = msgspec.structs.replace(SETTINGS, critical=("c0",))
    candidate = [*calls([mine, *[True] * 399]), *NOTHING_CALLED]
    cloud = [*calls([before, *[True] * 399]), *NOTHING_CALLED]

    assert rule(decide(evidence(candidate, cloud=cloud), settings), "critical rows").state == state


def test_a_critical_row_that_was_not_asked_leaves_it_open():
    settings = msgspec.structs.replace(SETTINGS, critical=("elsewhere",))

    assert rule(decide(evidence(GOOD, cloud=GOOD), settings), "critical rows").state == "open"


@pytest.mark.parametrize(
    ("parity", "state"), [(None, "open"), (Count(0, 200), "holds"), (Count(1, 200), "fails")]
)
def test_prompts_must_have_been_found_equal(parity, state):
    verdict = decide(evidence(GOOD, cloud=GOOD, parity=parity), SETTINGS)

    assert rule(verdict, "parity").state == state


@pytest.mark.parametrize(
    ("canaries", "state"), [(None, "open"), (Count(0, 50), "holds"), (Count(1, 50), "fails")]
)
def test_planted_data_must_not_come_out(canaries, state):
    settings = msgspec.structs.replace(SETTINGS, canaries=True)

    verdict = decide(evidence(GOOD, cloud=GOOD, canaries=canaries), settings)

    assert rule(verdict, "canaries").state == state


@pytest.mark.parametrize(("cap", "state"), [(9.0, "holds"), (0.5, "fails")])
def test_answers_must_come_in_time(cap, state):
    settings = msgspec.structs.replace(SETTINGS, p95_seconds=cap)

    assert rule(decide(evidence(GOOD, cloud=GOOD), settings), "quick").state == state


def test_a_person_may_have_to_approve():
    settings = msgspec.structs.replace(SETTINGS, approval=True)
    shown = evidence(GOOD, champion=MIDDLING, cloud=GOOD)

    assert decide(shown, settings).decision == "hold"
    assert "a person has to approve" in decide(shown, settings).sentence
    assert decide(shown, settings, approved_by="ada").decision == "promote"


def test_a_verdict_is_written_and_read(tmp_path):
    verdict = decide(evidence(GOOD, cloud=GOOD), SETTINGS)

    gate.write(verdict, tmp_path / "verdict.json")

    assert gate.read(tmp_path / "verdict.json") == verdict


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_what_is_no_verdict_is_told(tmp_path, content):
    (tmp_path / "verdict.json").write_bytes(content)

    with pytest.raises(GateError, match=r"verdict\.json"):
        gate.read(tmp_path / "verdict.json")


# ---------------------------------------------------------------- known truth


def gates(seed: int, gain: float, size: int, repeat: int = 1) -> Counter[str]:
    """Verdicts on candidates whose true share of right answers is the cloud's plus `gain`.

    One in seven and a half rows is answered differently; `repeat` rows of a conversation alike.
    """
    chance = random.Random(seed)
    settings = msgspec.structs.replace(SETTINGS, schema_validity=None)
    return Counter(
        decide(_simulated(chance, gain, size, repeat), settings).decision for _ in range(GATES)
    )


def _simulated(chance: random.Random, gain: float, size: int, repeat: int) -> Evidence:
    only_candidate, only_cloud = 0.065 + gain / 2, 0.065 - gain / 2
    mine, theirs = [], []
    for n in range(size // repeat):
        draw = chance.random()
        right = draw < only_candidate or draw > 0.5
        cloud = only_candidate <= draw < only_candidate + only_cloud or draw > 0.5
        for k in range(repeat):
            row = f"c{n}-{k}"
            mine.append(answered(row, right=right, group=f"c{n}", category=""))
            theirs.append(answered(row, right=cloud, group=f"c{n}", category=""))
    # A category of none, and a tool that all have: slices are tested elsewhere.
    return evidence([*mine, *NOTHING_CALLED], cloud=[*theirs, *NOTHING_CALLED])


@pytest.mark.parametrize("repeat", [1, 3])
def test_one_that_is_worse_by_the_margin_is_promoted_at_most_as_often_as_alpha(repeat):
    # What counts is the share over all rows, also those without a call.
    found = gates(1, -0.03 * 360 / 300, 300, repeat)

    nominal = SETTINGS.alpha * GATES
    assert found["promote"] <= nominal + 2 * math.sqrt(nominal)
    assert found["promote"] > 0


def test_the_better_the_candidate_the_more_often_it_is_promoted():
    found = gates(2, 0.03, 300)

    assert found["promote"] > 0.8 * GATES
    assert found["refuse"] == 0


def test_with_few_items_hardly_anything_is_decided():
    found = gates(3, 0.0, 48)

    assert found["not decidable"] > 0.6 * GATES


# ---------------------------------------------------------------- a limit for the canary


@pytest.mark.parametrize(
    ("cloud", "settings", "limit"),
    [
        (GOOD, SETTINGS, 0.03),
        (MIDDLING, SETTINGS, 0.03 + 2 * 40 / 460),
        (GOOD, msgspec.structs.replace(SETTINGS, figure="bfcl"), None),
        (GOOD, msgspec.structs.replace(SETTINGS, margin=None), None),
        (None, SETTINGS, None),
    ],
)
def test_what_may_differ_from_the_cloud_follows_from_the_margin(cloud, settings, limit):
    found = decide(evidence(GOOD, cloud=cloud), settings).may_differ

    assert found == (limit if limit is None else pytest.approx(limit))
