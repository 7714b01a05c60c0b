"""Building: nothing leaks from one side to another, and nothing gets lost without a reason."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from proxy.protocol.openai import FunctionCall
from tests.trainer.examples import TOOLS, corpus, function, row, weather
from trainer import dataset
from trainer import rows as rows_module
from trainer.curate import report
from trainer.curate.build import build
from trainer.curate.sides import share
from trainer.dataset import SIDES, Dataset
from trainer.errors import DatasetError, TrainerError
from trainer.recipe import BfclSettings, FilterSettings, Recipe, SplitSettings, VarietySettings
from trainer.recipe.curation import BalanceSettings, DecontaminateSettings, SchemaSettings
from trainer.recipe.sources import JsonlSettings
from trainer.rows import Label, Row

OFF = dict.fromkeys(FilterSettings.__struct_fields__)
PLAIN = FilterSettings(**{**OFF, "schema": SchemaSettings()})
"""Nothing but the schema's filter: for laws of the split and of variety."""
RECIPE = Recipe(
    domain="test",
    format="structured",
    template="structured",
    sources=[BfclSettings(categories=[])],
    filters=PLAIN,
    split=SplitSettings(unseen_tools=0.3, seen=0.3, validation=6),
    variety=VarietySettings(copies=2, distractors=3, unrelated=0.1, negatives=0.3, hard=0),
)
TAKEN_AS_IT_IS = msgspec.structs.replace(
    RECIPE, split=SplitSettings(unseen_tools=0, seen=0, validation=0)
)
"""Every row on the training side."""
ALONE = msgspec.structs.replace(TAKEN_AS_IT_IS, variety=VarietySettings(distractors=0, hard=0))
"""The same, with no other tool on offer."""

seeds = st.integers(min_value=0, max_value=1000)
corpora = seeds.map(corpus)
few = settings(max_examples=10, phases=[Phase.generate])
"""A dataset takes some milliseconds to build; most of what breaks a law does so in every one."""


def made_by(rows: list[Row], recipe: Recipe, **options: object) -> Dataset:
    """The dataset as it is read from where it was written."""
    with TemporaryDirectory() as directory:
        build(rows, recipe, Path(directory), **options)
        return dataset.read(Path(directory))


def built(rows: list[Row], seed: int = 0) -> Dataset:
    return made_by(rows, msgspec.structs.replace(RECIPE, seed=seed))


def varied(rows: list[Row], **settings: float) -> list[Row]:
    """The training side that is made of these rows alone."""
    variety = VarietySettings(**{"hard": 0, **settings})
    return made_by(rows, msgspec.structs.replace(TAKEN_AS_IT_IS, variety=variety)).train


def offered(rows: list[Row]) -> set[str]:
    return {function.name for row in rows for function in row.functions}


def called(rows: list[Row]) -> set[str]:
    return {call.name for row in rows for call in row.calls}


# ---------------------------------------------------------------- sides


@few
@given(rows=corpora, seed=seeds)
def test_the_order_of_the_source_changes_nothing(rows, seed):
    shuffled = random.Random(seed).sample(rows, len(rows))

    assert built(shuffled).fingerprint == built(rows).fingerprint
    assert built(shuffled).dropped == built(rows).dropped


@few
@given(corpora, seeds)
def test_the_same_rows_and_recipe_have_the_same_fingerprint(rows, seed):
    assert built(rows, seed).fingerprint == built(rows, seed).fingerprint


@few
@given(corpora)
def test_no_question_is_on_two_sides(rows):
    sides = [{row.group for row in getattr(built(rows), side)} for side in SIDES]

    assert sum(map(len, sides)) == len(set.union(*sides))


@few
@given(corpora)
def test_training_shows_no_unseen_tool(rows):
    made = built(rows)

    assert not called(made.unseen) & offered(made.train)


@few
@given(corpora)
def test_unseen_rows_without_a_call_offer_no_tool_that_training_shows(rows):
    made = built(rows)

    answered = [row for row in made.unseen if not row.calls]
    assert not offered(answered) & offered(made.train + made.validation)


@few
@given(corpora)
def test_training_shows_every_tool_that_the_seen_side_calls(rows):
    made = built(rows)

    assert called(made.seen) <= offered(made.train)


@few
@given(corpora)
def test_a_held_out_row_is_never_trained_on_as_rows_are_added(rows):
    before, after = built(rows[:100]), built(rows)

    held_out = {row.source for row in before.seen + before.unseen}
    assert not held_out & {row.source for row in after.train + after.validation}


@few
@given(corpora)
def test_training_and_both_tests_have_rows_and_validation_no_more_than_asked(rows):
    made = built(rows)

    assert made.train
    assert made.seen
    assert made.unseen
    assert len(made.validation) <= 6


def test_shares_of_nothing_hold_nothing_out():
    made = made_by(corpus(0), TAKEN_AS_IT_IS)

    assert (made.validation, made.seen, made.unseen) == ([], [], [])


# ---------------------------------------------------------------- what is dropped


@few
@given(corpora)
def test_every_row_is_on_a_side_or_counted_with_a_reason(rows):
    made = built(rows)

    kept = {row.source for side in SIDES for row in getattr(made, side)}
    assert len(kept) + sum(made.dropped.values()) == len(rows)


def test_where_no_row_is_left_the_filters_that_dropped_them_are_told():
    with pytest.raises(DatasetError, match=r"no row is left of 1.*1 several_calls"):
        made_by([row(weather(), weather("Bergen"))], TAKEN_AS_IT_IS)


def test_a_row_whose_tools_are_all_held_out_is_counted():
    nothing_fits = row(question="Anything?", functions=(function("tides"),))
    split = SplitSettings(unseen_tools=0.44, seen=0, validation=0)
    assert share("tool:tides") < 0.44 < share("tool:weather")
    assert share("question:anything?") > 0.44

    made = made_by([nothing_fits, row(weather())], msgspec.structs.replace(ALONE, split=split))

    assert made.dropped == {"no_tool_left": 1}


def test_a_training_row_whose_question_is_tested_is_counted():
    tested, known = sorted(TOOLS, key=lambda name: share("tool:" + name))[:2]
    rows = [
        row(FunctionCall(name, "{}"), question="Same?", functions=(function(name),), source=name)
        for name in (tested, known)
    ]
    split = SplitSettings(unseen_tools=share("tool:" + known), seen=0, validation=0)

    made = made_by(rows, msgspec.structs.replace(RECIPE, split=split))

    assert ([r.source for r in made.unseen], made.train) == ([tested], [])
    assert made.dropped == {"question_on_two_sides": 1}


# ---------------------------------------------------------------- variety


@few
@given(corpora)
def test_a_called_row_becomes_as_many_examples_as_asked(rows):
    made = varied(rows, copies=3)

    times = Counter(row.source for row in made if row.calls)
    assert set(times.values()) == {3}
    assert set(times) == {row.source for row in rows if row.calls}


@few
@given(rows=corpora, most=st.integers(min_value=0, max_value=5))
def test_an_example_offers_no_more_tools_beside_the_right_one_than_asked(rows, most):
    made = varied(rows, distractors=most)

    assert max(len(row.functions) for row in made if row.calls) <= 1 + most


@few
@given(corpora)
def test_rows_can_keep_the_tools_that_they_offer(rows):
    own = {row.source: offered([row]) for row in rows}

    made = varied(rows, distractors=None, unrelated=0.0, negative_distractors=0)

    assert all(offered([row]) == own[row.source] for row in made)


@few
@given(corpora)
def test_the_right_tool_is_always_offered_and_no_tool_twice(rows):
    made = built(rows)

    examples = [row for side in SIDES for row in getattr(made, side) if row.calls]
    assert all(row.calls[0].name in offered([row]) for row in examples)
    assert all(len(offered([row])) == len(row.functions) for row in examples)


@few
@given(rows=corpora, negatives=st.sampled_from([0.1, 0.3, 0.5]))
def test_no_more_examples_than_asked_call_nothing(rows, negatives):
    made = varied(rows, negatives=negatives, unrelated=0.0)

    assert sum(not row.calls for row in made) <= negatives * len(made) + 0.5


@few
@given(corpora)
def test_where_the_right_tool_is_gone_nothing_is_called_and_something_is_said(rows):
    called_rows = {row.source: row for row in rows if row.calls}

    made = varied(list(called_rows.values()), unrelated=1.0)

    gone = [row for row in made if not row.calls]
    assert gone
    assert all(row.text and row.functions for row in gone)
    assert not any(offered([row]) & offered([called_rows[row.source]]) for row in gone)


def test_added_tools_share_no_word_with_the_right_one():
    names = ("get_weather", "getWeatherNow", "WeatherMap", "hotel", "flight", "music", "taxi")
    rows = [
        row(FunctionCall(name, "{}"), functions=(function(name),), source=name) for name in names
    ]

    made = varied(rows, distractors=2, copies=20)

    beside = {name for r in made if r.source == "get_weather" for name in offered([r])}
    assert beside == {"get_weather", "hotel", "flight", "music", "taxi"}


def test_the_right_tool_has_no_place_of_its_own():
    made = varied(corpus(1), distractors=3, copies=4)

    first = [row.functions[0].name == row.calls[0].name for row in made if row.calls]
    assert 0.1 < sum(first) / len(first) < 0.9


def test_another_seed_makes_other_examples_of_the_same_rows():
    first, second = built(corpus(0), seed=1), built(corpus(0), seed=2)

    assert first.fingerprint != second.fingerprint
    assert {row.source for row in first.seen} == {row.source for row in second.seen}


def test_too_few_tools_to_choose_among_are_told_with_the_remedy():
    with pytest.raises(DatasetError, match=r"too few.*`distractors`"):
        varied([row(weather())] * 20, distractors=3)


# ---------------------------------------------------------------- rows beside rows

WORDS = [
    *("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty"),
    *("knoll", "larch", "maple", "nettle", "otter", "poppy", "quartz", "raven", "sedge", "thyme"),
    *("umber", "vetch", "willow", "yarrow"),
]
FULL = msgspec.structs.replace(
    RECIPE,
    filters=FilterSettings(length=None),
    split=SplitSettings(unseen_tools=0.1, seen=0.3, sealed=0.1, validation=4),
    variety=VarietySettings(distractors=0, unrelated=0, hard=0.1),
)


NO_SPLIT = msgspec.structs.replace(
    FULL,
    split=SplitSettings(unseen_tools=0, seen=0, validation=0),
    variety=VarietySettings(distractors=0, hard=0),
)


def talk(seed: int, size: int = 60) -> list[Row]:
    """Conversations of some rows each; one in three repeats another's words, or nearly so."""
    chance = random.Random(seed)
    said: list[str] = []
    rows = []
    for number in range(size):
        words = chance.choices(WORDS, k=chance.randint(15, 30))
        if said and chance.random() < 0.3:
            words = chance.choice(said).split()
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        said.append(" ".join(words))
        tool = chance.choice(TOOLS)
        asked = row(
            FunctionCall(tool, f'{{"city": "{chance.choice(WORDS)}"}}'),
            question=said[-1],
            functions=(function(tool, city="string"),),
            source=f"talk:{number}",
        )
        group = f"conversation {chance.randrange(size // 3)}"
        rows.append(msgspec.structs.replace(asked, group=group, at=float(number)))
    return rows


talks = st.integers(min_value=0, max_value=1000).map(talk)
fewer = settings(max_examples=4, phases=[Phase.generate])
"""These laws either hold or break in most cases; there is nothing to shrink."""


def runs(of: Row) -> set[tuple[str, ...]]:
    """The runs of 13 words of a question."""
    words = of.question.lower().split()
    return {tuple(words[start : start + 13]) for start in range(len(words) - 12)}


@fewer
@given(rows=talks, seed=seeds)
def test_with_all_filters_too_the_order_of_the_source_changes_nothing(rows, seed):
    shuffled = random.Random(seed).sample(rows, len(rows))

    assert made_by(shuffled, FULL).fingerprint == made_by(rows, FULL).fingerprint


@fewer
@given(talks)
def test_no_conversation_is_on_two_sides(rows):
    made = made_by(rows, FULL)

    sides = [{r.group for r in getattr(made, side)} for side in SIDES if side != "unseen"]
    trained = sides[0] | sides[1]
    assert not trained & (sides[2] | {r.group for r in made.unseen})


def test_validation_takes_whole_conversations_and_says_what_it_lacks(tmp_path):
    said = [
        msgspec.structs.replace(one, group=f"conversation {number % 8}")
        for number, one in enumerate(corpus(3)[:40])
    ]
    recipe = msgspec.structs.replace(
        RECIPE, split=SplitSettings(unseen_tools=0, seen=0, validation=12)
    )

    told = list(report.facts(build(said, recipe, tmp_path), None, []))

    made = dataset.read(tmp_path)
    watched = Counter(row.group for row in made.validation)
    assert sorted(watched.values()) == [5, 5]
    assert not set(watched) & {row.group for row in made.train}
    assert any(line.startswith("validation has 10 of 12 rows") for line in told)


@fewer
@given(talks)
def test_no_run_of_13_words_of_a_test_is_trained_on(rows):
    made = made_by(rows, FULL)

    tested = {run for r in [*made.seen, *made.unseen] for run in runs(r)}
    assert not [r for r in [*made.train, *made.validation] if runs(r) & tested]


@fewer
@given(talks)
def test_with_a_ledger_a_row_stays_on_its_side_for_ever(rows):
    with TemporaryDirectory() as folder:
        split = SplitSettings(
            unseen_tools=0.1, seen=0.3, validation=0, newest=True, ledger=f"{folder}/sides.jsonl"
        )
        recipe = msgspec.structs.replace(FULL, split=split)

        before, after = made_by(rows[:40], recipe), made_by(rows, recipe)

    held_out = {r.source for r in [*before.seen, *before.unseen]}
    trained = {r.source for r in before.train}
    assert not held_out & {r.source for r in after.train}
    assert not trained & {r.source for r in [*after.seen, *after.unseen]}


def test_of_new_groups_the_newest_are_tested():
    rows = talk(3)
    with TemporaryDirectory() as folder:
        split = SplitSettings(
            unseen_tools=0, seen=0.3, validation=0, newest=True, ledger=f"{folder}/sides.jsonl"
        )
        made = made_by(rows, msgspec.structs.replace(FULL, split=split))

    tested = sum(r.at for r in made.seen) / len(made.seen)
    trained = sum(r.at for r in made.train) / len(made.train)
    assert tested > trained


def test_the_newest_need_a_ledger():
    split = SplitSettings(newest=True)

    with pytest.raises(DatasetError, match="ledger"):
        made_by(talk(0), msgspec.structs.replace(FULL, split=split))


def test_of_rows_that_say_the_same_the_one_that_people_made_stays():
    first = row(weather(), source="log")
    second = msgspec.structs.replace(
        row(weather(), question="rain  in OSLO?", source="human"), label=Label(kind="human")
    )

    made = made_by([first, second], NO_SPLIT)

    assert {r.source for r in made.train} == {"human"}
    assert made.dropped == {"the_same_again": 1}


def test_of_rows_that_say_nearly_the_same_the_oldest_stays():
    words = " ".join(WORDS * 3)
    old, new = (
        msgspec.structs.replace(row(weather(), question=said, source=name), at=at)
        for said, name, at in ((words, "old", 1.0), (words + " amber", "new", 2.0))
    )

    made = made_by([new, old], NO_SPLIT)

    assert {r.source for r in made.train} == {"old"}
    assert made.dropped == {"nearly_the_same": 1}


def test_a_cap_holds():
    rows = [row(weather(w), question=f"Rain in {w}, {v}?") for w, v in pairs()]
    filters = FilterSettings(**{**OFF, "balance": BalanceSettings(tool=5)})

    made = made_by(rows, msgspec.structs.replace(NO_SPLIT, filters=filters))

    assert len({r.id for r in made.train}) == 5
    assert made.dropped == {"too_many_of_a_tool": len(rows) - 5}


def pairs():
    return list(zip(WORDS, reversed(WORDS), strict=True))


def test_what_an_evaluation_asks_is_not_trained_on(tmp_path):
    said = " ".join(WORDS)
    asked = row(weather("Rome"), question=said)
    rows_file = tmp_path / "evaluation.jsonl"
    rows_module.write(rows_file, [asked])
    leaks = {
        "asked_in_an_evaluation": row(weather("Oslo"), question=f"so {said} then", source="1"),
        "called_in_an_evaluation": row(weather("Rome"), question="Is it wet there?", source="2"),
    }
    clean = row(weather("Bergen"), question="Is it dry here?", source="3")
    sets = (JsonlSettings(paths=[str(rows_file)], format="headrace", license="x"),)
    filters = FilterSettings(length=None, decontaminate=DecontaminateSettings(sets=sets))

    made = made_by([*leaks.values(), clean], msgspec.structs.replace(NO_SPLIT, filters=filters))

    assert {r.source for r in made.train} == {"3"}
    assert made.dropped == dict.fromkeys(leaks, 1)


def test_what_nearly_repeats_an_evaluation_is_not_trained_on(tmp_path):
    words = list(WORDS) * 2
    asked = row(weather("Rome"), question=" ".join(words))
    rows_module.write(tmp_path / "evaluation.jsonl", [asked])
    words[30] = "zinnia"
    near = row(weather("Rome"), question=" ".join(words), source="near")
    path = str(tmp_path / "evaluation.jsonl")
    sets = (JsonlSettings(paths=[path], format="headrace", license="x"),)
    settings = DecontaminateSettings(sets=sets, words=40, calls=False)
    filters = FilterSettings(length=None, decontaminate=settings)
    recipe = msgspec.structs.replace(NO_SPLIT, filters=filters)

    made = made_by([near, row(weather("Oslo"), source="other")], recipe)

    assert {r.source for r in made.train} == {"other"}
    assert made.dropped == {"nearly_asked_in_an_evaluation": 1}


def test_erased_exchanges_are_left_out():
    rows = [msgspec.structs.replace(one, exchange=f"chatcmpl-{n}") for n, one in enumerate(talk(0))]

    made = made_by(rows, FULL, erased=frozenset({"chatcmpl-7"}))

    assert made.dropped["erased_from_the_record"] == 1
    assert "chatcmpl-7" not in {r.exchange for side in SIDES for r in getattr(made, side)}


# ---------------------------------------------------------------- wherever it runs


@pytest.mark.parametrize("on", ["2", "ray"])
def test_the_dataset_is_the_same_wherever_it_is_made(on):
    if on == "ray":
        pytest.importorskip("ray", reason="needs the extra ray")
    rows = [*talk(1), *corpus(1)]

    assert made_by(rows, FULL, on=on).fingerprint == made_by(rows, FULL).fingerprint


def test_an_executor_that_there_is_not_is_told():
    with pytest.raises(TrainerError, match="--on many: say a number of cores, `all`, or `ray`"):
        made_by(talk(0), FULL, on="many")


# ---------------------------------------------------------------- what is told of it


@fewer
@given(talks)
def test_the_funnel_adds_up(rows):
    with TemporaryDirectory() as directory:
        manifest = build(rows, FULL, Path(directory))

    assert manifest.steps[0].entered == len(rows)
    sides = dict(list(manifest.rows.items())[1:])
    trained = manifest.steps[-1].left - sum(sides.values())
    assert trained * FULL.variety.copies <= manifest.rows["train"]
    assert sum(one.kept for one in manifest.tools.values()) == manifest.steps[-1].left


@fewer
@given(talks)
def test_every_row_has_a_fate(rows):
    with TemporaryDirectory() as directory:
        manifest = build(rows, FULL, Path(directory))
        fates = list(dataset.fates(Path(directory)))

    assert [fate.source for fate in fates] == [r.source for r in rows]
    fallen = Counter(fate.reason for fate in fates if fate.reason)
    assert fallen == manifest.dropped
    assert Counter(f.step for f in fates if not f.reason).keys() <= {*SIDES, "sealed"}


def test_a_build_leaves_no_working_files():
    with TemporaryDirectory() as directory:
        build(talk(0), FULL, Path(directory))
        names = {path.name for path in Path(directory).iterdir()}

    assert names == {
        *(f"{side}.jsonl" for side in (*SIDES, "sealed")),
        "manifest.json",
        "fates.jsonl",
    }
